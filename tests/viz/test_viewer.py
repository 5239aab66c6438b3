"""The page as text: whole, escaped, sealed; and what is packed comes out again."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from gossamer.circuits.circuit import Circuit, UnitsLeft
from gossamer.circuits.verify import verify
from gossamer.errors import GossamerError
from gossamer.models.attach import attach
from gossamer.models.run_report import OpenUnits, RunReport
from gossamer.recipes.addition.page import addition_of, pack_bert, view_addition
from gossamer.recipes.addition.report import build_report
from gossamer.recipes.addition.task import Addition
from gossamer.viz.report.page import report_page
from gossamer.viz.viewer import view
from gossamer.viz.viewer.pack import array, circuits, quantised
from gossamer.viz.viewer.page import as_json, asset, fill
from helpers.zoo import adder

KINDS = {"u1": "<u1", "u2": "<u2", "u4": "<u4", "f4": "<f4"}


def small_circuit(tokens=("a", "b", "c"), *, edges: int = 9, outputs=(2,), seed: int = 0) -> Circuit:
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(0, 2, edges).astype(np.int32) for name in ("layer", "head", "query", "key")}
    values = {name: rng.random(edges).astype(np.float32) for name in ("logit", "weight", "contribution")}
    return Circuit(
        n_layers=2,
        n_heads=2,
        tokens=(tuple(tokens),),
        answers=(tuple(tokens),),
        outputs=outputs,
        visible=(4 * len(tokens) ** 2,),
        prompt=np.zeros(edges, dtype=np.int32),
        **columns,
        **values,
    )


def unpack(packed) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["data"]), KINDS[packed["type"]]) * packed.get("scale", 1)


def data_of(page: str) -> dict:
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[0])


def test_both_panels_count_edges_from_the_same_weight_on():
    base, sparse = (small_circuit(edges=40, seed=seed) for seed in (1, 2))
    cut = replace(base.select(base.weight >= 0.5), meta={"threshold": 0.5})
    panels = data_of(view(cut, sparse))["panels"]
    for panel, circuit in zip(panels, (base, sparse), strict=True):
        expected = int((circuit.weight >= 0.5).sum())
        assert (panel["least"], unpack(panel["circuits"]["open"]).tolist()) == (0.5, [expected])
    whole = data_of(view(base, sparse))["panels"]
    assert [(panel["least"], unpack(panel["circuits"]["open"])[0]) for panel in whole] == [(0, 40)] * 2


def test_closed_heads_and_neurons_stand_in_the_page_as_in_a_report():
    """One drawing for both: the page's section is that of the report, and there is none where nothing is closed."""
    left = UnitsLeft(((1, 0),), ((2, 8), (8, 8)))
    circuit = small_circuit()
    circuit = replace(circuit.select(~((circuit.layer == 1) & (circuit.head == 0))), left=left)
    text = view(small_circuit(), circuit)
    panels = data_of(text)["panels"]
    assert [panel["closed"] for panel in panels] == [[], [[1, 0]]]
    assert [panel["neurons"] for panel in panels] == [[], [[2, 8], [8, 8]]]
    units = {"heads": OpenUnits([[1.0, 1.0], [0.0, 1.0]], of_layer=[2, 2])}
    units["neurons"] = OpenUnits([[2.0], [8.0]], of_layer=[8, 8])
    drawn = re.findall(r'<section id="left"[^>]*>(.*?)</section>', text, re.S)[0]
    assert drawn
    assert drawn in report_page(RunReport(gates=units))
    assert "Layer 1, head 0: closed" in drawn
    assert "2 of 8" in drawn
    assert re.findall(r'<section id="left"[^>]*>(.*?)</section>', view(small_circuit()), re.S) == [""]


@pytest.mark.parametrize(("layers", "tallest"), [(4, 0.55), (12, 0.62), (30, 0.62), (36, 0.62)])
def test_inputs_stand_above_the_fold_of_a_deep_model(layers, tallest):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: install nodejs to run the page's scripts without a browser")
    call = f"gridFor({{tokens: Array(14).fill('x')}}, {layers}, 640, 0.44 * 900, 0, 1)"
    script = f"{asset('scene.js')};\nconsole.log({call}.bottom)"
    done = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < tallest * 900


def test_integers_take_the_fewest_bytes():
    for largest, kind in ((255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4")):
        packed = array(np.array([0, largest]))
        assert packed["type"] == kind
        assert unpack(packed).tolist() == [0, largest]
    assert unpack(array(np.zeros(0, dtype=np.int64))).size == 0


def test_weights_come_back_within_a_step():
    values = np.random.default_rng(0).random(1000).astype(np.float32)
    np.testing.assert_allclose(unpack(quantised(values)), values, atol=0.51 / 65535)
    assert unpack(quantised(np.zeros(3, dtype=np.float32))).tolist() == [0, 0, 0]


def test_circuits_come_back_sorted_by_line():
    found = small_circuit(edges=40)
    packed = circuits([found], most=1000)
    columns = [unpack(packed[name]).astype(int) for name in ("layer", "query", "key", "head")]
    assert [*zip(*columns, strict=True)] == sorted(zip(*columns, strict=True))
    assert unpack(packed["open"]).tolist() == unpack(packed["counts"]).tolist() == [40]


def kept_weights(found, most: int) -> np.ndarray:
    packed = circuits([found], most=most)
    assert (unpack(packed["open"])[0], unpack(packed["counts"])[0]) == (50, most)
    return np.sort(unpack(packed["weight"]))


def test_of_many_edges_those_that_reach_the_answer_are_kept_and_then_the_heaviest():
    found = small_circuit(edges=50, outputs=(1,))
    live = found.live_mask()
    n_live = int(live.sum())
    assert 2 < n_live < 48
    few = np.sort(found.weight[live])[-2:]
    np.testing.assert_allclose(kept_weights(found, 2), few, atol=1e-4)
    more = np.sort([*found.weight[live], *np.sort(found.weight[~live])[-2:]])
    np.testing.assert_allclose(kept_weights(found, n_live + 2), more, atol=1e-4)


def test_outputs_may_differ_from_prompt_to_prompt():
    parts = [small_circuit("abc", outputs=(2,)), small_circuit("abcd", outputs=(3,))]
    assert circuits(parts, most=99)["outputs"] == [[2], [3]]
    assert circuits(parts[:1] * 2, most=99)["outputs"] == [[2]]


def test_the_page_fetches_nothing_and_runs_only_its_own_script():
    page = view(small_circuit(), small_circuit(edges=3, seed=1))
    assert "@" not in re.sub(r"@(ts-|type|param|return|prop|template|media)", "", page)
    addresses = set(re.findall(r"""https?://[^\s"'<)]+""", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    script = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in page
    assert "default-src &#x27;none&#x27;" in page


def test_markup_in_tokens_and_titles_stays_text():
    evil = "</script><script>alert(1)</script>"
    page = view(
        small_circuit((evil, "&", "\u2028")), title=evil, titles=(evil,), edge_findings={(0, 0, 1): evil}
    )
    assert page.count("<script") == 2
    assert data_of(page)["panels"][0]["title"] == evil
    assert evil in data_of(page)["panels"][0]["circuits"]["words"]


def test_a_single_circuit_is_not_called_a_base_model():
    assert [p["title"] for p in data_of(view(small_circuit()))["panels"]] == ["Circuit"]
    pair = data_of(view(small_circuit(), small_circuit(edges=3, seed=1)))["panels"]
    assert [p["title"] for p in pair] == ["Base Model", "Sparse Model"]


def test_json_refuses_what_is_not_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json({"x": float("nan")})
    assert fill("@a@ @b@", a="@b@", b="c") == "@b@ c"


def test_circuits_on_different_prompts_are_refused():
    with pytest.raises(GossamerError, match="circuits on different prompts"):
        view(small_circuit("abc"), small_circuit("abd"))


def adders() -> tuple[Addition, BertForMaskedLM, BertForMaskedLM]:
    task = Addition(1)
    base, sparse = adder(seed=0), adder(seed=1)
    attach(sparse, bias=0.0, check=False)
    return task, base, sparse


def test_the_addition_page_holds_every_sum_and_both_models():
    task, base, sparse = adders()
    data = data_of(view_addition(base, sparse, start="3+8"))
    assert data["kind"] == "addition"
    assert len(unpack(data["panels"][1]["circuits"]["lengths"])) == task.n_sums == 100
    assert data["panels"][0]["model"]["bias"] is None
    assert data["panels"][1]["model"]["bias"] == 0.0
    sizes = [np.prod(note["shape"]) for note in data["panels"][0]["model"]["tensors"]]
    assert sum(sizes) == len(unpack(data["panels"][0]["model"]["weights"]))


def test_every_parameter_of_the_model_is_in_the_page():
    _, base, _ = adders()
    assert sum(int(np.prod(t["shape"])) for t in pack_bert(base)["tensors"]) == base.num_parameters()


def test_models_of_other_tasks_are_refused():
    _, base, _ = adders()
    other = adder(2)
    with pytest.raises(GossamerError, match="not of one addition task"):
        view_addition(base, other)
    assert addition_of(base.config) == Addition(1)


def test_page_and_report_call_a_position_by_the_same_name():
    task, base, sparse = adders()
    inputs, labels = task.encode(torch.arange(task.n_sums))
    proved = build_report(
        task, {"ceiling": "kl=0.1"}, verify(base, sparse, inputs, labels), torch.arange(1), {}, impl="eager"
    )
    places = data_of(view_addition(base, sparse, start="3+8"))["places"]
    assert places[:4] == [
        "units digit of the first number",
        "the plus sign",
        "units digit of the second number",
        "the equals sign",
    ]
    assert proved.edges
    for edge in proved.edges:
        assert (edge["from"], edge["to"]) == (places[edge["key"]], places[edge["query"]])


REPORT = {
    "task": {"digits": 2},
    "settings": {"seed": 0, "ceiling": "kl=0.002", "base_steps": 800, "steps": 4000},
    "proof": {"prompts": 10000, "base_exact": 10000, "sparse_exact": 9999, "edges_possible": 1936}
    | {"edges_mean": 6.712, "leaks": 0, "precision": 0.9, "edges_per_layer": [0.5, 6.212]},
    "edges": [{"layer": 1, "head": 2, "from": "<b>", "to": "hundreds slot", "open": 0.97, "needed": True}],
}


def test_the_report_says_what_was_asked_kept_and_lost():
    page = report_page(RunReport.of(REPORT), figure="<svg/>", links={"The page": "view.html"})
    for words in (
        "kl=0.002",
        "9,999",
        "1,936",
        "6.712",
        "90.00 %",
        "the whole graph",
        "97.00 %",
        "&lt;b&gt;",
    ):
        assert words in page
    assert "<script" not in page
    assert 'href="view.html"' in page


def test_the_report_explains_itself_to_a_stranger():
    page = report_page(RunReport.of(REPORT | {"proof": REPORT["proof"] | {"edges_floor": 4.545}}))
    for words in (
        "trained to add two numbers of 2 digits",
        "<code>36+28=?????</code>",
        "there are 1,936 of them per prompt",
        "0 is no difference",
        "an argument, not a proof",
    ):
        assert words in page
    assert "what it carries" not in page


def test_the_report_says_what_edges_carry_where_that_is_known():
    edge = {
        "layer": 1,
        "head": 2,
        "query": 9,
        "key": 0,
        "from": "tens digit of the first number",
        "to": "tens slot",
        "open": 1.0,
    }
    page = report_page(RunReport.of(REPORT | {"edges": [edge]}), edge_findings={(1, 2, 9, 0): "the <carry>"})
    assert "what it carries" in page
    assert "the &lt;carry&gt;" in page


@pytest.mark.parametrize("left_out", list(REPORT))
def test_the_report_does_without_what_is_missing(left_out):
    page = report_page(RunReport.of({name: value for name, value in REPORT.items() if name != left_out}))
    assert "Limits" in page
    assert "None" not in page


def test_an_empty_report_is_a_page():
    assert "A model made sparse" in report_page(RunReport())


def test_scripts_are_in_the_package():
    assert "runBert" in asset("bert.js")
