"""The SmolLM2 experiment without its model: texts out of packages, prompts, what is remembered, and the page."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.experiments.smollm2.prepare import LONGEST, SHORTEST, passages, strings
from benchmarks.experiments.smollm2.report import family, write_circuits, write_page
from benchmarks.experiments.smollm2.run import TRAINED, Remembered, length_of
from benchmarks.experiments.smollm2.tasks import TASKS, prompts
from gossamer.files import write_json


def word(n: int) -> bytes:
    return n.to_bytes(4, "big", signed=True)


def vector(*texts: str) -> bytes:
    """A vector of strings as R serialises one, packed as its databases are."""
    parts = [word(0x40009) + word(len(text.encode())) + text.encode() for text in texts]
    whole = (
        b"X\n" + word(3) + word(0x40200) + word(0x30500) + word(5) + b"UTF-8" + word(16) + word(len(texts))
    )
    chunk = whole + b"".join(parts)
    return word(len(chunk)) + zlib.compress(chunk)


def test_the_strings_of_r_objects_are_read() -> None:
    found = list(strings(vector("It is a truth", "", "universally") + vector("acknowledged, café")))
    assert found == [["It is a truth", "", "universally"], ["acknowledged, café"]]


def test_passages_end_at_a_line_and_short_ones_are_left_out() -> None:
    line = "a line of text\n"
    long, short = line * (LONGEST // 10), line * (SHORTEST // 30)
    (found,) = passages(iter([long, short, long]))
    assert SHORTEST <= len(found) <= LONGEST + 1
    assert found.endswith(line)


class Words:
    """A tokenizer of one token a word, which takes an answer of two words for two."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __len__(self) -> int:
        return 1000

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [self.ids.setdefault(word, len(self.ids)) for word in text.split()]}


def test_prompts_are_as_many_as_asked_for_and_of_equal_length() -> None:
    batches = prompts("capitals", 20, 0, Words())
    assert sum(map(len, batches)) == 20
    assert all(batch.clean.shape == batch.corrupt.shape for batch in batches)


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"nonsense"}))
def test_right_and_wrong_differ_and_clean_differs_from_corrupt(task: str) -> None:
    for pair in TASKS[task][0](50, 0):
        assert not set(pair.right) & set(pair.wrong)
        assert pair.clean != pair.corrupt


def test_a_later_year_has_a_larger_tens_digit() -> None:
    for pair in TASKS["greater_than"][0](50, 1):
        tens = int("".join(c for c in pair.clean[0] if c.isdigit())[2])
        assert min(map(int, pair.right)) == tens + 1
        assert max(map(int, pair.wrong)) == tens - 1


def test_an_answer_is_remembered_by_its_tokens() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, input_ids: Tensor) -> SimpleNamespace:
            self.calls += 1
            return SimpleNamespace(logits=input_ids.float())

    inner = Counting()
    base = Remembered(inner)
    for ids in ([[1, 2]], [[3, 4]], [[1, 2]]):
        assert base(input_ids=torch.tensor(ids)).logits.tolist() == ids
    assert inner.calls == 2


def test_a_run_s_name_says_its_length_and_its_line() -> None:
    lengths = [length_of(name) for name in TRAINED]
    assert lengths == [128, 64, 64, 256, 64, 64, 64, 64, 64, 64, 64, 64, 256, 64]
    assert [family(name) for name in ("topk-8-t64", "trained-topk-8-t64", "weight-0.01-t256", *TRAINED)] == [
        "topk", "trained-topk", "weight", "default", "default", "kl0.2", "default",
        "lora", "lora", "lora", "lora", "lora", "lora", "lora", "lora", "lora", "delta_ce0.01",
    ]  # fmt: skip


def test_a_page_is_made_of_the_record_alone(tmp_path: Path) -> None:
    found = {"keys_per_query": 8.5, "keys_at_position_0": 0.9, "kl": 0.02, "kl_se": 0.001, "delta_ce": 0.01,
             "delta_ce_se": 0.002, "agreement": 0.95, "keys_by_layer": [8.0, 9.0]}  # fmt: skip
    trained = {"length": 128, "ceiling": "kl=0.05", "feasible": False, "best_step": 25, "held_out": found}
    judged = {**trained, "length": 64, "judged": found | {"keys_per_query": 8.25}}
    runs = {"default-t128": trained, "lora2000-t64": judged, "topk-8-t64": {"length": 64, "held_out": found}}
    write_json(tmp_path / "smollm2.json", {"environment": {"torch": "2"}, "runs": runs})
    write_page(tmp_path / "smollm2.json")
    page = (tmp_path / "smollm2.md").read_text()
    assert "| default-t128 | 128 tokens | 8.50 | 0.90 | 0.0200 ± 0.0010 |" in page
    assert "| lora2000-t64 | 64 tokens | 8.25 |" in page.partition("Judged once more")[2]
    assert "kl=0.05, missed" in page
    assert (tmp_path / "smollm2.svg").is_file()
    assert (tmp_path / "smollm2-layers.svg").is_file()


def test_circuits_stand_base_beside_sparse_and_say_why_there_is_none(tmp_path: Path) -> None:
    able = {
        "kind": "accuracy",
        "accuracy": 1.0,
        "divergence": 0.0,
        "open_edges": 100.0,
        "visible_edges": 100.0,
    }
    found = {"kind": "attention", "ablation": "mean", "attention_edges_of": 100}
    rows = [
        *({**able, "task": "ioi", "variant": variant} for variant in ("base", "tight")),
        {**found, "task": "ioi", "variant": "base", "attention_edges": 40},
        {**found, "task": "ioi", "variant": "tight", "attention_edges": 10},
        {
            **found,
            "task": "nonsense",
            "variant": "base",
            "attention_edges": None,
            "attention_refused": "no effect",
        },
    ]
    write_json(tmp_path / "circuits.json", rows)
    write_circuits(tmp_path / "circuits.json")
    page = (tmp_path / "circuits.md").read_text()
    assert "| ioi | - | 1.00 | 1.00 |" in page
    assert "| ioi | 100 | 100 | 100 |" in page
    assert "| ioi | mean | 100 | 40 | 10 |" in page
    assert "| nonsense | mean | 100 | refused | - |" in page
    assert "- Refused: base, no effect\n" in page
