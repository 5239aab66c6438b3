"""What the theme leaves out for those who do not see or do not point: in the HTML of every page, as text.

A signature over several lines is a list of descriptions without terms, so its lines become plain lines.
Code and tables scroll sideways in a narrow window, so they can be reached with the keyboard; the captions of
the list of pages are headings, so they say of which level.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

MENDED = {
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
}
SIGNATURE = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")
LINE = re.compile(r"<dd>(.*)</dd>")


def as_lines(found: re.Match[str]) -> str:
    """The arguments of a signature, a line each."""
    return LINE.sub(r'<span class="sig-line">\1</span>', found[1])


def mend(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Put in what is missing."""
    if "body" in context:
        for plain, mended in MENDED.items():
            context["body"] = context["body"].replace(plain, mended)
        context["body"] = SIGNATURE.sub(as_lines, context["body"])


def with_plain_defaults(*given: Any) -> tuple[str | None, str | None]:
    """A signature whose defaults are Python: `<factory>` is none, and Sphinx would break such a line at every comma."""
    signature, returns = given[-2:]
    return signature and signature.replace("<factory>", "..."), returns


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx to do so before it fills in the page."""
    app.connect("html-page-context", mend)
    app.connect("autodoc-process-signature", with_plain_defaults)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
