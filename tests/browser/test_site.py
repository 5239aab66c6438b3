"""The site as a browser shows it: every page, light and dark, wide and narrow, and as a screen reader finds it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.documents import ROOT, SITE

WIDE, NARROW = 1280, 400
PAGES = sorted(str(page.relative_to(SITE).with_suffix("")) for page in SITE.rglob("*.md"))
# Text of the theme's own search field and its icons are the theme's to mend; what the page says is ours.
OURS = "article, .page h1"
# What another theme can break: all else of a page is the same in both, and is looked at in the light one.
COLOURS = ["color-contrast", "link-in-text-block"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning of Sphinx fails here, as it does in `make docs`."""
    for name in ("sphinx", "furo", "myst_nb"):
        pytest.importorskip(name, reason=f"no {name}: pip install '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(SITE), str(out)]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1200, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    return out


def test_the_site_builds_without_a_warning(site: Path) -> None:
    """Needs no browser: what else `make docs` would find."""
    assert all((site / f"{page}.html").is_file() for page in PAGES)


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, browser) -> Iterator[str]:
    """What the visitor's system asks for, which the site follows."""
    ask(browser, request.param)
    yield request.param
    ask(browser, "")


def ask(browser, value: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": value}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def visit(browser, page: Path) -> None:
    browser.driver.get_log("browser"), browser.driver.get_log("performance")
    browser.driver.get(page.as_uri())
    browser.wait("return document.readyState === 'complete'")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_readable_and_fetches_nothing(page: str, theme: str, site: Path, browser, axe: str) -> None:
    browser.size(WIDE)
    visit(browser, site / f"{page}.html")
    browser.driver.execute_script(axe)
    # Its preload would ask for the style sheets once more, which a page from a file may not.
    options = {"preload": False} | ({"runOnly": COLOURS} if theme == "dark" else {})
    script = (
        "return axe.run(arguments[0], arguments[1])"
        ".then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))"
    )
    assert browser.driver.execute_script(script, OURS, options) == []
    assert all(url.startswith("file:") for url in browser.requests())
    assert not browser.complaints()
    shown = browser.run(
        "return [...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )
    assert shown, "a picture is missing"
    browser.size(NARROW)
    assert browser.run("return document.documentElement.scrollWidth") <= NARROW


def test_no_link_between_pages_is_broken(site: Path, browser) -> None:
    """What Sphinx made of the links, anchors included."""
    broken = []
    for page in PAGES:
        visit(browser, site / f"{page}.html")
        links = browser.run("return [...document.querySelectorAll('article a[href]')].map(a => a.href)")
        for link in links:
            place, _, anchor = link.partition("#")
            file = Path(place.removeprefix("file://"))
            if not link.startswith("file:"):
                continue
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
            if not text or (anchor and file.suffix == ".html" and f'id="{anchor}"' not in text):
                broken.append((page, link))
    assert not broken
