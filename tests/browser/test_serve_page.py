"""`gossamer serve` in a browser: type a prompt, look, cut an edge, see the answer change; and the failure page."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from gossamer.circuits.trace import trace
from gossamer.errors import refuse
from gossamer.models.attach import attach, gates_of
from helpers.pointer import middle_of, point
from helpers.served import Letters, models

uvicorn = pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'gossamer[serve]'")

from gossamer.viz.serve.app import app  # noqa: E402
from gossamer.viz.serve.session import Limits, Session  # noqa: E402


@contextmanager
def served(made: Any) -> Iterator[str]:
    """An app at an address of this machine, in a thread."""
    server = uvicorn.Server(uvicorn.Config(made, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


@pytest.fixture(scope="module")
def session() -> Session:
    base, sparse = models()
    attach(sparse, bias=-0.2, check=False)
    limits = Limits(tokens=32, characters=40, waiting=2, threshold=0.0)
    return Session(base, sparse, Letters(), limits)  # type: ignore[arg-type]


def answered(browser: Any, asked: int) -> None:
    browser.wait(f"return document.getElementById('panels').dataset.shown === '{asked}'", 60)


def shares(browser: Any) -> list[str]:
    """The next-token tables as text: one per model."""
    return browser.run("return [...document.querySelectorAll('#next table')].map(t => t.innerText)")


def test_type_look_cut_and_restore(browser, session):
    with served(app(session, start="hello")) as address:
        browser.open(address)
        browser.size(1280)
        browser.run("document.getElementById('text').value = 'abcde'")
        browser.find("#run").click()
        answered(browser, 2)
        ids = torch.tensor([list(b"abcde")])
        for name, model in zip(("base", "sparse"), session.models, strict=True):
            assert int(browser.panel(name)["open"]) == len(trace(model, ids, outputs=(4,)))
        before = shares(browser)
        assert len(before) == 2
        assert all("%" in table for table in before)
        bars = "return [...document.querySelectorAll('#next .share')].map(bar => parseFloat(bar.style.width))"
        assert max(browser.run(bars)) == 100  # one scale for both models
        tops = "return [...document.querySelectorAll('.row-name')].map(t => t.getBoundingClientRect().top)"
        heights = browser.run(tops)
        assert heights[: len(heights) // 2] == heights[len(heights) // 2 :]  # panels stand level

        # The edge of the last layer that the last token leans on most.
        circuit = trace(session.models[1], ids, outputs=(4,))
        last = (circuit.layer == 1) & (circuit.query == 4)
        key = int(circuit.key[last][circuit.weight[last].argmax()])
        next(row for row in browser.rows() if row.text == f"1: 4 reads {key}").click()
        browser.find("#cut").click()
        answered(browser, 3)
        keep = torch.ones(1, 2, 5, 5)
        keep[:, circuit.head[last & (circuit.key == key)], 4, key] = 0
        with torch.no_grad(), gates_of(session.models[1]).using(keep={1: keep}):
            expected = session.models[1](ids).logits[0, -1].softmax(-1).max().item()
        after = shares(browser)
        assert after[0] == before[0]
        assert after[1] != before[1]
        assert f"{100 * expected:.1f} %" in after[1]
        assert browser.run("return document.querySelectorAll('#panel-sparse .cut').length") == 1
        assert "Sparse Model: " in browser.find("#verdict").text

        browser.find("#restore").click()
        answered(browser, 4)
        assert shares(browser) == before
        assert browser.complaints() == []
        assert all(url.startswith((address, "chrome")) for url in browser.requests())


def test_axe_finds_no_serious_fault_on_the_served_page(browser, session, axe):
    with served(app(session, start="abcde")) as address:
        browser.open(address)
        browser.size(1280)
        answered(browser, 1)
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
        assert browser.faults(axe) == []
        for width in (400, 1280, 3840):
            browser.size(width)
            inside, outside = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
            assert inside <= outside


def test_click_a_line_and_the_answer_changes(browser, session):
    with served(app(session, start="abcde")) as address:
        browser.open(address)
        browser.size(1280)
        answered(browser, 1)
        before, whole, drawn = shares(browser), browser.panel("sparse"), int(browser.panel("sparse")["drawn"])
        knife = browser.find("#knife").get_attribute("aria-pressed")
        assert knife == "true"  # a server is there to be asked
        point(browser, middle_of(browser, "sparse", drawn - 1), click=True)
        answered(browser, 2)
        assert browser.panel("sparse") != whole
        assert browser.run("return document.querySelectorAll('#panel-sparse .cut').length") == 1
        assert shares(browser)[0] == before[0]
        assert shares(browser)[1] != before[1]
        assert "was " in shares(browser)[1]  # before the cut
        assert re.fullmatch(r"Sparse Model: \d edges? cut\.", browser.find("#verdict").text)
        browser.find("#restore").click()
        answered(browser, 3)
        browser.find("#head-1-0").click()  # a head, of both models
        answered(browser, 4)
        assert all(after != old for after, old in zip(shares(browser), before, strict=True))
        browser.find("#head-1-0").click()
        answered(browser, 5)
        assert shares(browser) == before
        assert browser.complaints() == []


def test_a_prompt_that_is_too_long_is_said(browser, session):
    with served(app(session, start="hello")) as address:
        browser.open(address)
        browser.run("const t = document.getElementById('text'); t.maxLength = 99; t.value = 'x'.repeat(33)")
        browser.find("#run").click()
        answered(browser, 2)
        assert "33 tokens: expected at most 32" in browser.find("#verdict.failed").text


def test_a_model_that_fails_has_a_page(browser):
    error = refuse("sparse/config.json is torn", "a whole checkpoint", "Copy it again")
    with served(app(error)) as address:
        browser.driver.get(address)
        assert "sparse/config.json is torn" in browser.find("body").text
        assert "Copy it again" in browser.find("body").text
