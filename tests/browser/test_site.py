"""The site as a browser shows it: every page, light and dark, wide and narrow, and as a screen reader finds it."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

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


def ask(browser, value: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": value}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def visit(browser, page: Path) -> None:
    browser.driver.get_log("browser"), browser.driver.get_log("performance")
    browser.driver.get(page.as_uri())
    browser.wait("return document.readyState === 'complete'")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_readable_and_fetches_nothing(page: str, site: Path, browser, axe: str) -> None:
    browser.size(WIDE)
    visit(browser, site / f"{page}.html")
    browser.driver.execute_script(axe)
    assert violations(browser) == []
    ask(browser, "dark")
    assert violations(browser, runOnly=COLOURS) == []
    ask(browser, "")
    assert all(url.startswith("file:") for url in browser.requests())
    assert not browser.complaints()
    shown = browser.run(
        "return [...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )
    assert shown, "a picture is missing"
    browser.size(NARROW)
    assert browser.run("return document.documentElement.scrollWidth") <= NARROW


def violations(browser, **options: Any) -> list[Any]:
    """What axe finds in what is ours of the page, whose preload would ask for style sheets that a file may not."""
    script = (
        "return axe.run(arguments[0], arguments[1])"
        ".then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))"
    )
    return browser.driver.execute_script(script, OURS, {"preload": False, **options})


class Links(HTMLParser):
    """The links of an article."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.found = 0, []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside += tag == "article"
        href = dict(attrs).get("href")
        if tag == "a" and self.inside and href:
            self.found.append(href)

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag == "article"


def test_no_link_between_pages_is_broken(site: Path) -> None:
    """What Sphinx made of the links, anchors included."""
    texts = {file.resolve(): file.read_text(encoding="utf-8") for file in site.rglob("*.html")}
    broken, followed = [], 0
    for page in PAGES:
        here = (site / f"{page}.html").resolve()
        links = Links()
        links.feed(texts[here])
        for link in links.found:
            place, _, anchor = link.partition("#")
            if "://" in place or place.startswith("mailto:"):
                continue
            followed += 1
            file = (here.parent / unquote(place)).resolve() if place else here
            text = texts.get(file, "")
            if not file.is_file() or (anchor and text and f'id="{unquote(anchor)}"' not in text):
                broken.append((page, link))
    assert followed > len(PAGES), "links are not found any more"
    assert not broken
