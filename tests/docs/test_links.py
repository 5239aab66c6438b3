"""No link of a document is broken, and every path that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gossamer
from gossamer.cli import VERBS
from helpers.documents import ROOT, SITE, fences, pages, prose

DOCUMENTS = [*pages(), ROOT / "DESIGN.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
TICKED = re.compile(r"`([^`\n]+)`")
# A path of the repository begins with one of its folders, or is a document at its top.
PATH = re.compile(
    r"^(?:(?:docs|src|tests|benchmarks|examples|\.ci)/[\w./*{},-]*|[A-Z]+\.md|Makefile|pyproject\.toml)$"
)
# Below src/gossamer/, which documents leave out.
MODULE = re.compile(r"^(?:gates|data|models|training|circuits|viz|recipes|cli)/[\w./]+$")
FORMER = ("CHANGELOG.md",)  # says what files were called


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that headings make, as GitHub and the site make them."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
    return set(plain)


@pytest.mark.parametrize("page", DOCUMENTS, ids=ids)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            assert target.startswith(("https://", "http://127.0.0.1")), target
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        inside = place.exists() and place.is_relative_to(ROOT)
        if not inside or (anchor and place.suffix == ".md" and anchor not in anchors(place)):
            broken.append(target)
    assert not broken, f"{ids(page)}: {broken}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=ids)
def test_every_path_in_backticks_exists(page: Path) -> None:
    if page.name in FORMER:
        pytest.skip("it says what files were called")
    missing = []
    for text in TICKED.findall(prose(page)):
        home = ROOT if PATH.match(text) else ROOT / "src/gossamer" if MODULE.match(text) else None
        if home is not None and not list(home.glob(text.strip("/"))):
            missing.append(text)
    assert not missing, f"{ids(page)}: {missing}"


def test_every_page_is_reached_from_the_first_one() -> None:
    """Sphinx says so too, with a warning; this needs no Sphinx."""
    seen, waiting = set(), [SITE / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for block in fences(page):
            if block.language == "{toctree}":
                lines = [line for line in block.text.split() if not line.startswith(":")]
                found = [p for line in lines for p in page.parent.glob(f"{line}.md")]
                assert found or not lines, f"{page}: {lines}"
                waiting += found
    assert seen == set(SITE.rglob("*.md"))


def test_the_reference_has_every_public_name_and_every_verb_its_page() -> None:
    text = (SITE / "reference/api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.M))
    assert named == set(gossamer.__all__)
    whole = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    verbs = [module.__name__.rpartition(".")[2] for modules in VERBS.values() for module in modules]
    assert [verb for verb in verbs if f"gossamer {verb}" not in whole] == []


def test_the_messages_on_the_page_of_errors_are_those_of_the_code() -> None:
    """Each constant part of a quoted message stands in the source, or is the other library's that it is said to be."""
    page = SITE / "errors.md"
    messages = [
        text for line in prose(page).splitlines() if line.startswith("`") for text in TICKED.findall(line)
    ]
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    plain = re.sub(r'"\s*\n\s*f?"', "", source)
    parts = [
        part.strip() for message in messages for part in message.split("...") if "Specified attn" not in part
    ]
    missing = [part for part in parts if part and re.sub(r"^[,:] ", "", part) not in plain]
    assert len(messages) > 20
    assert not missing, missing
