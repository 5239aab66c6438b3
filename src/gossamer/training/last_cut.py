"""The last act of a run: what its last step left of the ceiling is spent on the gates nearest to closing.

Under a learning rate that falls to zero a run comes to rest a little inside its ceiling. The bias of the edges' gates
then falls once more, by bisection, as long as the model holds the ceiling with its margin on the held-out rows that
chose it. Nothing is trained, so a cut is a few evaluations; which edges close is what the trained gates say.
"""

from __future__ import annotations

import math
from typing import Any

from accelerate.utils import AutocastKwargs

from .counted import under_way

PARTS = 32  # of the deepest cut: how finely one is looked for, in five evaluations or six (assumed)


def leave_autocast(trainer: Any) -> None:
    """Let a trainer that is done evaluate in the precision of the weights, in which the model will be loaded.

    bfloat16 alone costs SmolLM2-135M a KL of 0.002 from its own base (LOG.md, 2026-11-29).
    """
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    trainer.accelerator.autocast_handler = AutocastKwargs(enabled=False)


def cut_once_more(trainer: Any) -> float:
    """Lower the bias of the gates on edges as far as the recipe lets it fall and the ceiling holds.

    Args:
        trainer: a finished `SparsityTrainer` that holds the model it kept.
    Returns: by how many nats the bias fell; 0 for a recipe without a last cut, without rows to choose on, for open
        gates, for a model that misses its ceiling, and for a run whose minutes are over.
    """
    deepest = trainer.args.recipe.gate.last_cut
    own = [one for one in trainer.gates if one.kind == "edges"]
    spent = trainer.budget is not None and trainer.budget.is_spent
    if not deepest or spent or not own or trainer.eval_dataset is None or not math.isfinite(own[0].bias):
        return 0.0
    (edges,), step = own, deepest / PARTS
    kept, callbacks, history = edges.bias, trainer.callback_handler.callbacks, trainer.state.log_history

    def holds(parts: int) -> bool:
        edges.bias = kept - parts * step
        score = trainer.evaluate(metric_key_prefix="cut")["cut_score"]
        search.done += 1
        return bool(score <= 1)

    low, high = 0, PARTS + 1  # the kept model, and one that is not tried
    # These evaluations are of candidates, and neither callbacks nor the history should take them for the run's.
    trainer.callback_handler.callbacks, trainer.state.log_history = [], []
    try:
        with under_way("evaluations of the last cut", 1 + math.ceil(math.log2(PARTS + 1))) as search:
            high = high if holds(0) else 1
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if holds(middle) else (low, middle)
    finally:
        trainer.callback_handler.callbacks, trainer.state.log_history = callbacks, history
        edges.bias = kept - low * step
    return low * step
