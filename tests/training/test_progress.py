"""What a person sees while a run goes on: a bar in a terminal, plain lines in a log file."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

from rich.console import Console

from gossamer.training.progress import ProgressLine

LOG = {"loss": 0.2376, "divergence": 0.3224, "multiplier": 0.24, "expected_open_edges": 1824.0}
WORDS = "loss 0.2376, divergence 0.3224, lambda 0.24, open edges 1,824.0 (eval 1,790.5)"


def watched(console: Console, steps: int = 3) -> None:
    """A run of a few steps, as a Trainer tells it."""
    line = ProgressLine("sparsify", console)
    state = SimpleNamespace(max_steps=steps, global_step=0)
    line.on_train_begin(None, state, None)
    for step in range(1, steps + 1):
        state.global_step = step
        line.on_step_end(None, state, None)
        line.on_log(None, state, None, logs={**LOG, "eval_open_edges": 1790.5})
    line.on_train_end(None, state, None)


def test_a_terminal_of_eighty_columns_shows_bar_and_numbers() -> None:
    screen = io.StringIO()
    watched(Console(file=screen, force_terminal=True, width=80))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert re.search(r"sparsify ━+ +3/3", text)
    assert WORDS in text


def test_a_log_file_has_plain_lines() -> None:
    file = io.StringIO()
    watched(Console(file=file, width=80))
    assert file.getvalue() == f"sparsify: step 1 of 3, {WORDS}\n"
