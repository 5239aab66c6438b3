"""Progress of a training run: a live bar in a terminal, plain lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from transformers import TrainerCallback

LINE_SECONDS = 10.0  # assumed: a log file wants a sign of life, not a flood

# What is shown, under which word, from the Trainer's log and evaluation metrics.
SHOWN = {
    "loss": "loss {:.4f}",
    "divergence": "divergence {:.4f}",
    "multiplier": "lambda {:.2g}",
}
# What is left of each kind of gate: the expected number in training, and the open ones of the last evaluation.
EXPECTED, OPEN = "expected_open_", "eval_open_"


class NumbersBelow(Progress):
    """A bar with its task's `numbers` on a line of their own: beside it, 80 columns would hold neither."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text("\n".join(task.fields["numbers"] for task in self.tasks))


class Watching(TrainerCallback):
    """A callback that looks at the trainer itself, which `sparsify` hands to it before training."""

    trainer: Any = None

    def watching(self, trainer: Any) -> Any:
        """Let the callback know its trainer; returns the callback."""
        self.trainer = trainer
        return self


class ProgressLine(Watching):
    """Show loss, divergence, lambda and open edges while a Trainer runs, with the time that is left.

    Args:
        title: what is running.
        console: where to show it.
    """

    def __init__(self, title: str, console: Console) -> None:
        self.title, self.console = title, console
        self.seen: dict[str, float] = {}
        self.bar: Progress | None = None
        self.task: Any = None
        self.last_line = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.console.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
        bar = NumbersBelow(*columns, TimeRemainingColumn(), console=self.console)
        bar.start()
        self.task = bar.add_task(self.title, total=state.max_steps, completed=state.global_step, numbers="")
        self.bar = bar

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        shown = (*SHOWN, EXPECTED, OPEN)
        self.seen.update({n: value for n, value in (logs or {}).items() if n.startswith(shown)})
        numbers = self.numbers()
        total = state.max_steps if self.trainer is None else self.trainer.controller.expected_steps
        if self.bar is not None:
            self.bar.update(self.task, total=total, numbers=numbers)
        elif time.monotonic() - self.last_line > LINE_SECONDS:
            self.last_line = time.monotonic()
            line = f"{self.title}: step {state.global_step} of {total}, {numbers}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar down; safe to call twice, and after an interruption."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def numbers(self) -> str:
        """The latest numbers in words."""
        message = [form.format(self.seen[name]) for name, form in SHOWN.items() if name in self.seen]
        known = (
            x.removeprefix(EXPECTED).removeprefix(OPEN) for x in self.seen if x.startswith((EXPECTED, OPEN))
        )
        for kind in dict.fromkeys(known):
            expected, opened = self.seen.get(EXPECTED + kind), self.seen.get(OPEN + kind)
            said = [] if expected is None else [f"{expected:,.1f}"]
            said += [] if opened is None else [f"(eval {opened:,.1f})"]
            message.append(" ".join([f"open {kind}", *said]))
        return ", ".join(message)
