"""Where a line of a page is, and a pointer to put there."""

from __future__ import annotations

import pytest


@pytest.fixture
def page(browser, adders):
    """The page as it comes, in a usual window; afterwards nobody complained, nothing was fetched."""
    browser.open(adders.page)
    browser.size(1280, 900)
    browser.run("document.activeElement.blur()")
    yield browser
    assert browser.complaints() == []
    assert all(url.startswith("file:") for url in browser.requests())


def middle_of(page, name: str, index: int) -> dict[str, float]:
    script = """const l = document.querySelectorAll(`#panel-${arguments[0]} line.edge`)[arguments[1]];
    const v = n => +l.getAttribute(n);
    const b = l.ownerSVGElement.getBoundingClientRect();
    return {x: b.left + v('x1') * 0.63 + v('x2') * 0.37, y: b.top + v('y1') * 0.63 + v('y2') * 0.37}"""
    return page.run(script, name, index)


def point(page, at: dict[str, float], *, click: bool = False) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    chain = ActionChains(page.driver, duration=0).w3c_actions
    chain.pointer_action.move_to_location(round(at["x"]), round(at["y"]))
    if click:
        chain.pointer_action.click()
    chain.perform()
    page.settle()
