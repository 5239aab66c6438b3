"""The addition page in a real browser, read off against `trace`."""

from __future__ import annotations

import copy
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from gossamer.circuits.trace import trace
from gossamer.circuits.verify import answers
from gossamer.models.attach import attach
from gossamer.recipes.addition.page import view_addition
from gossamer.recipes.addition.task import as_text
from helpers.pointer import middle_of, point

SLOTS = tuple(range(6, 11))


@pytest.fixture
def page(browser, adders):
    """The page as it comes, in a usual window; afterwards nobody complained, nothing was fetched."""
    browser.open(adders.page)
    browser.size(1280, 900)
    browser.run("document.activeElement.blur()")
    yield browser
    assert browser.complaints() == []
    assert all(url.startswith("file:") for url in browser.requests())


def of_sum(adders, text: str, which: str = "sparse"):
    inputs, _ = adders.task.encode(torch.tensor([adders.task.parse(text)]))
    return trace(getattr(adders, which), inputs, text=as_text, outputs=SLOTS)


def type_sum(page, text: str) -> None:
    box = page.find("#sum")
    box.clear()
    box.send_keys(text)


def lines(circuit) -> int:
    return len(set(zip(circuit.layer.tolist(), circuit.query.tolist(), circuit.key.tolist(), strict=True)))


def test_a_typed_sum_redraws_both_panels(page, adders):
    type_sum(page, "47 + 85")
    for which in ("base", "sparse"):
        found, expected = page.panel(which), of_sum(adders, "47+85", which)
        assert found["answers"] == "".join(expected.answers[0])
        assert (int(found["open"]), int(found["edges"])) == (len(expected), len(expected))
        assert int(found["lines"]) == int(found["drawn"]) == lines(expected)
        assert len(page.driver.find_elements("css selector", f"#panel-{which} line.edge")) == lines(expected)


def test_a_hundred_random_sums_as_traced(page, adders):
    chosen = torch.randperm(10_000, generator=torch.Generator().manual_seed(1))[:100]
    inputs, _ = adders.task.encode(chosen)
    script = """const box = document.getElementById('sum'), found = [];
    for (const [a, b] of arguments[0]) {
      box.value = `${a}+${b}`; box.dispatchEvent(new Event('input'));
      found.push(['base', 'sparse'].map(name => ({...document.getElementById('panel-' + name).dataset})));
    }
    return found"""
    found = page.run(script, [[int(i) // 100, int(i) % 100] for i in chosen])
    for at, which in enumerate(("base", "sparse")):
        expected = trace(getattr(adders, which), inputs, text=as_text, outputs=SLOTS)
        counts = expected.per_prompt()
        for i, panels in enumerate(found):
            assert panels[at]["answers"] == "".join(expected.answers[i])
            assert int(panels[at]["edges"]) == counts[i]


def test_the_page_computes_what_torch_computes(page, adders):
    chosen = torch.arange(0, 10_000, 97)
    inputs, _ = adders.task.encode(chosen)
    script = """const data = JSON.parse(document.getElementById('data').textContent);
    return data.panels.map(panel => { const bert = bertOf(panel.model, panel.closed);
      return arguments[0].map(ids => { const run = runBert(bert, ids);
        const names = ['layer', 'head', 'query', 'key', 'weight', 'contribution'];
        return [run.answers, ...names.map(n => [...run.edges[n]])]; }); })"""
    for which, found in zip(("base", "sparse"), page.run(script, inputs.tolist()), strict=True):
        expected = trace(getattr(adders, which), inputs, outputs=SLOTS)
        for i, (said, *columns) in enumerate(found):
            part = expected.of_prompt(i)
            assert [str(x) for x in said] == list(part.answers[0])
            order = np.lexsort((part.head, part.key, part.query, part.layer))
            places = np.stack([getattr(part, n)[order] for n in ("layer", "head", "query", "key")])
            np.testing.assert_array_equal(np.array(columns[:4]).reshape(places.shape), places)
            np.testing.assert_allclose(columns[4], part.weight[order], rtol=1e-5, atol=2e-6)
            np.testing.assert_allclose(columns[5], part.contribution[order], rtol=1e-5, atol=2e-5)


def test_arrow_keys_and_surprise(page):
    from selenium.webdriver.common.keys import Keys

    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert page.find("#sum").get_attribute("value") == "37 + 30"
    page.press(Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    assert page.find("#verdict").text.startswith("36 + 29 = 65.")
    seen = set()
    for _ in range(4):
        page.find("#surprise").click()
        seen.add(page.find("#sum").get_attribute("value"))
    assert len(seen) > 1
    assert all(re.fullmatch(r"\d{1,2} \+ \d{1,2}", text) for text in seen)


def test_what_is_not_a_sum_is_said_and_nothing_moves(page):
    before = page.panel("sparse")
    type_sum(page, "360 + x")
    assert page.find("#sum").get_attribute("aria-invalid") == "true"
    assert "such as 36 + 28" in page.find("#sum-help").text
    assert page.panel("sparse") == before


def read_line(words: str) -> tuple[int, int, int]:
    found = re.search(r"Layer (\d+): position (\d+) .* reads position (\d+) ", words)
    assert found, words
    layer, query, key = map(int, found.groups())
    return layer, query, key


def test_hover_reads_an_edge(page, adders):
    circuit = of_sum(adders, "36+28")
    count = int(page.panel("sparse")["drawn"])
    point(page, middle_of(page, "sparse", count - 1))  # the strongest lies on top
    words = page.find("#readout-words").text
    layer, query, key = read_line(words)
    here = (circuit.layer == layer) & (circuit.query == query) & (circuit.key == key)
    assert here.any()
    said = words.split("Sparse Model:")[1]
    heads = {int(h): float(w) for h, w in re.findall(r"head (\d+) weight ([\d.]+)", said)}
    expected = dict(zip(circuit.head[here].tolist(), circuit.weight[here].tolist(), strict=True))
    assert heads == pytest.approx(expected, abs=6e-4)
    assert len(page.driver.find_elements("css selector", "line.mark")) == 2  # marked in both panels


def test_hover_says_what_an_edge_carries_where_that_is_known(browser, adders, tmp_path):
    circuit = of_sum(adders, "36+28")
    at = int(circuit.weight.argmax())
    edge = tuple(int(getattr(circuit, name)[at]) for name in ("layer", "head", "query", "key"))
    page = tmp_path / "carries.html"
    words = {edge: "<b>the carry</b>"}
    page.write_text(
        view_addition(adders.base, adders.sparse, circuit=adders.circuit, edge_findings=words),
        encoding="utf-8",
    )
    browser.open(page)
    browser.size(1280)
    last = int(browser.panel("sparse")["drawn"]) - 1
    point(browser, middle_of(browser, "sparse", last))
    assert browser.find(".carries").text == f"Head {edge[1]}: <b>the carry</b>."
    # The weakest line: nothing is known, so nothing is said.
    point(browser, middle_of(browser, "sparse", 0), click=True)
    assert read_line(browser.find("#readout-words").text)
    assert browser.run("return document.querySelectorAll('.carries').length") == 0
    # What was found out about the whole model is not told of one that has been cut.
    browser.find("#cut").click()
    point(browser, middle_of(browser, "sparse", int(browser.panel("sparse")["drawn"]) - 1))
    assert read_line(browser.find("#readout-words").text) == (edge[0], edge[2], edge[3])
    assert browser.run("return document.querySelectorAll('.carries').length") == 0
    assert browser.complaints() == []


@pytest.mark.parametrize("position", [7, 10])
def test_an_answer_shows_only_the_paths_into_it(page, adders, position):
    page.find(f"#sparse-answer-{position}").click()
    for which in ("base", "sparse"):
        into = of_sum(adders, "36+28", which).live([position])
        assert int(page.panel(which)["edges"]) == len(into)
    assert page.find(f"#sparse-answer-{position}").get_attribute("aria-pressed") == "true"
    page.find("#clear").click()
    assert page.panel("sparse")["edges"] == page.panel("sparse")["open"]


def test_an_input_shows_only_the_paths_out_of_it_by_keyboard(page, adders):
    from selenium.webdriver.common.keys import Keys

    circuit, reached, expected = of_sum(adders, "36+28"), {1}, 0
    for layer in range(4):
        here = (circuit.layer == layer) & np.isin(circuit.key, list(reached))
        expected += int(here.sum())
        reached |= set(circuit.query[here].tolist())
    page.run("document.getElementById('sparse-input-0').focus()")
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert int(page.panel("sparse")["edges"]) == expected
    assert page.run("return document.activeElement.id") == "sparse-input-1"
    page.driver.switch_to.active_element.send_keys(Keys.PAGE_UP)
    assert "position 1 (units digit of the first number), after layer 0" in page.find("#readout-words").text
    page.driver.switch_to.active_element.send_keys(
        Keys.PAGE_DOWN, Keys.PAGE_DOWN
    )  # no further than the input
    assert int(page.panel("sparse")["edges"]) == expected
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert int(page.panel("sparse")["edges"]) == len(circuit)


def test_threshold_layers_heads_and_live(page, adders):
    circuit = of_sum(adders, "36+28")
    page.slide("threshold", 31)
    assert int(page.panel("sparse")["edges"]) == int((circuit.weight >= 0.31**2).sum())
    page.slide("threshold", 0)
    for layer in range(4):
        page.find("#forth").click()
        assert int(page.panel("sparse")["edges"]) == int((circuit.layer == layer).sum())
    page.find("#every").click()
    page.slide("low", 1)
    page.slide("high", 2)
    assert int(page.panel("sparse")["edges"]) == int(np.isin(circuit.layer, [1, 2]).sum())
    page.find("#every").click()
    page.find("#head-1-2").click()
    off = (circuit.layer == 1) & (circuit.head == 2)
    assert int(page.panel("sparse")["edges"]) == len(circuit) - int(off.sum())
    page.find("#head-1-2").click()
    page.find("#live").click()
    for which in ("base", "sparse"):
        assert int(page.panel(which)["edges"]) == len(of_sum(adders, "36+28", which).live())


def test_a_cut_line_changes_what_torch_says_it_changes(page, adders):
    point(page, middle_of(page, "base", int(page.panel("base")["drawn"]) - 1), click=True)
    words = page.find("#readout-words").text
    layer, query, key = read_line(words)
    page.find("#cut").click()
    keep = torch.ones(1, 1, 11, 11)
    keep[..., query, key] = 0
    inputs, _ = adders.task.encode(torch.tensor([3628]))
    model = copy.deepcopy(adders.base)
    with attach(model, check=False).using(keep={layer: keep}):
        expected = "".join(as_text(answers(model, inputs)[0]))
    assert page.panel("base")["answers"] == expected
    assert int(page.panel("base")["open"]) == 1936 - 4
    dashes = "return document.querySelector('#panel-base .cut line').getAttribute('stroke-dasharray')"
    assert page.run(dashes)  # what was cut stays to be seen
    assert page.run("return document.querySelectorAll('#panel-base .cut').length") == 1
    assert page.run("return document.querySelectorAll('#panel-sparse .cut').length") == 0
    page.find("#restore").click()
    assert int(page.panel("base")["open"]) == 1936
    assert page.run("return document.querySelectorAll('.cut').length") == 0


def test_with_the_knife_a_click_cuts_and_another_restores(page):
    page.find("#knife").click()
    whole = page.panel("sparse")
    at = middle_of(page, "sparse", int(whole["drawn"]) - 1)
    point(page, at, click=True)
    assert page.panel("sparse") != whole  # not fewer edges: what reads the cut one may open others
    assert page.run("return document.querySelectorAll('#panel-sparse .cut').length") == 1
    point(page, at, click=True)
    assert page.panel("sparse") == whole
    page.find("#head-1-2").click()
    assert page.find("#head-1-2").get_attribute("aria-pressed") == "false"
    assert page.find("#head-1-2").text == "0"
    assert int(page.panel("base")["open"]) == 1936 - 121
    page.find("#head-1-2").click()
    assert page.panel("sparse") == whole


SVG = "{http://www.w3.org/2000/svg}"


def saved_panels(page) -> tuple[ElementTree.Element, dict[str, Any]]:
    """The saved file's root, and of each panel in it: left and top, and its elements by class."""
    root = ElementTree.fromstring(page.saved())
    found = {}
    for group in root.iter(f"{SVG}g"):
        if group.get("class") == "panel":
            left, top = map(float, re.findall(r"[\d.]+", group.get("transform", "")))
            classes = [e.get("class", "").split(" ")[0] for e in group.iter()]
            found[group.get("data-panel")] = (left, top, classes)
    return root, found


def test_export_has_the_lines_that_are_shown(page):
    page.find("#head-0-0").click()
    page.slide("threshold", 31)
    page.find("#sparse-answer-9").click()
    root, panels = saved_panels(page)
    for which in ("base", "sparse"):
        assert panels[which][2].count("edge") == int(page.panel(which)["drawn"])
        assert panels[which][2].count("mark") == 1  # the chosen answer
    assert page.panel("base")["edges"] != page.panel("base")["open"]
    words = "".join(root.itertext())
    for text in ("Base Model", "Sparse Model"):
        assert text in words
    for which in ("base", "sparse"):
        count = page.find(f"#panel-{which} .count").text
        assert re.sub(r"\s", "", count) in re.sub(r"\s", "", words)


@pytest.mark.parametrize("dark", [False, True])
def test_export_is_laid_out_and_coloured_as_the_page_is(page, dark):
    if (page.run("return document.documentElement.dataset.theme") == "dark") != dark:
        page.find("#theme").click()
    assert page.find("#beside").get_attribute("aria-pressed") == "false"
    root, panels = saved_panels(page)
    (left, top, _), (right, level, _) = panels["base"], panels["sparse"]
    assert (left, top, level) == (0, 0, 0)
    assert right > page.run("return document.querySelector('#panel-base .stage').clientWidth")
    assert float(root.get("width", "0")) > 1000
    assert root.find(f"{SVG}rect").get("fill") == ("#12161b" if dark else "#ffffff")
    page.find("#beside").click()
    root, panels = saved_panels(page)
    assert panels["sparse"][0] == 0
    assert panels["sparse"][1] > 300
    page.find("#beside").click()
    page.size(400, 800)  # too narrow for two: the page stacks them unasked
    assert saved_panels(page)[1]["sparse"][0] == 0


@pytest.mark.parametrize(("width", "height"), [(400, 800), (1280, 800), (3840, 2160)])
def test_no_window_cuts_anything_off(page, width, height):
    page.size(width, height)
    inside, outside = page.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert inside <= outside
    script = """return [...document.querySelectorAll('svg .token rect')].every(r => {
      const b = r.getBoundingClientRect(); return b.left >= 0 && b.right <= innerWidth + 1 })"""
    assert page.run(script)


def test_first_paint_and_redraw_are_quick(page):
    paint = page.wait("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    times: list[Any] = []
    for text in ("12 + 34", "99 + 99", "0 + 7", "58 + 61", "36 + 28"):
        type_sum(page, text)
        times.append(float(page.run("return document.getElementById('panels').dataset.redraw")))
    print(f"first paint {paint:.0f} ms, redraw {sorted(times)} ms")  # noqa: T201
    assert paint < 5000  # 1 s is the aim, measured in docs/how-to/look.md; a loaded build server gets five
    assert sorted(times)[2] < 250  # 50 ms is the aim


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_axe_finds_no_serious_fault(page, axe, theme, width):
    page.size(width)
    if page.run("return document.documentElement.dataset.theme") != theme:
        page.find("#theme").click()
    page.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert page.faults(axe) == []
