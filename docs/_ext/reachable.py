"""What scrolls sideways in a narrow window, code and tables, can be reached and scrolled with the keyboard."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

SCROLLING = {
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
}


def make_reachable(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Let every scrolling element of a page take the focus."""
    if "body" in context:
        for plain, reachable in SCROLLING.items():
            context["body"] = context["body"].replace(plain, reachable)


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx to do so before it fills in the page."""
    app.connect("html-page-context", make_reachable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
