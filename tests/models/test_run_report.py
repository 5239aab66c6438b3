"""The report of a run: written and read back as it was, in the schema of today and in those of 0.1.0."""

from __future__ import annotations

import json

import pytest

from gossamer.errors import CheckpointError
from gossamer.models.run_report import SCHEMA_VERSION, OpenUnits, RunReport

REPORT = RunReport(
    model="gpt2",
    data="stdlib",
    settings={"steps": 4},
    ceiling="kl=0.02",
    feasible=False,
    missed="by 0.1",
    best_step=3,
    steps=4,
    held_out={"kl": 0.12, "kl_se": 0.01},
    held_out_rows=64,
    gates={
        "edges": OpenUnits([[1.0, 2.5], [0.0, 0.5]], [[0.1, 0.2], [0.0, 0.1]]),
        "heads": OpenUnits([[1.0]]),
    },
    impl="blockwise",
)
# As `gossamer demo` and `gossamer sparsify` of 0.1.0 wrote them.
OLD_DEMO = {
    "schema": 1,
    "task": {"name": "addition", "digits": 2},
    "settings": {"seed": 0, "ceiling": "kl=0.0004"},
    "run": {"feasible": True, "missed": None, "kept_step": 9, "steps": 10, "chosen_on": {"divergence": 1e-4}},
    "proof": {"prompts": 10_000},
    "impl": "blockwise",
}
OLD_TEXT = {
    "model": "gpt2",
    "data": "stdlib",
    "local": [],
    "ceiling": "kl=0.02",
    "feasible": True,
    "missed": "",
    "held_out": {"kl": 0.01},
    "open_edges_per_layer": [3.5],
    "open_edges_per_head": [[1.0, 2.5]],
    "keys_per_query_per_head": [[0.1, 0.2]],
    "settings": {"steps": 4},
}


def test_what_is_written_is_read_back(tmp_path):
    REPORT.write(tmp_path)
    assert RunReport.load(tmp_path) == REPORT
    assert json.loads((tmp_path / "report.json").read_text())["schema"] == SCHEMA_VERSION


def test_the_sum_of_a_layer_is_that_of_its_groups():
    assert REPORT.gates["edges"].per_layer == [3.5, 0.5]


def test_a_demo_of_the_first_version_is_read():
    found = RunReport.of(OLD_DEMO)
    assert (found.recipe, found.ceiling, found.feasible, found.missed) == ("addition", "kl=0.0004", True, "")
    assert (found.best_step, found.steps, found.chosen_on) == (9, 10, {"divergence": 1e-4})
    assert found.proof == OLD_DEMO["proof"]


def test_a_text_run_of_the_first_version_is_read():
    found = RunReport.of(OLD_TEXT)
    assert (found.recipe, found.model, found.feasible) == ("text", "gpt2", True)
    assert found.gates == {"edges": OpenUnits([[1.0, 2.5]], [[0.1, 0.2]])}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([], "no JSON object"),
        ({"schema": SCHEMA_VERSION + 1}, f"schema {SCHEMA_VERSION + 1}"),
        ({"schema": "two"}, "schema 'two'"),
        ({"schema": SCHEMA_VERSION, "modle": "gpt2"}, "unknown entries modle"),
        ({"schema": SCHEMA_VERSION, "gates": {"edges": 3}}, "another shape under gates"),
        ({"schema": SCHEMA_VERSION, "gates": [3]}, "another shape under gates"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(record, said):
    with pytest.raises(CheckpointError, match=said) as error:
        RunReport.of(record)
    assert "\n" not in str(error.value)


def test_a_folder_without_report_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no report\.json"):
        RunReport.load(tmp_path)
