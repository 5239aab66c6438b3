"""What a user may ask of the Trainer beside our settings: each option is honoured, or refused by name."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_pt_utils import nested_detach

from ..errors import refuse
from ..models.head import Head
from ..models.sentence_encoder import Pooling
from .config import SparsityConfig
from .constraint import SENTENCES, require_meaning
from .divergence import Measure

LOSS = "the loss of this trainer, open units against divergence"
# Options of `Trainer` and of `TrainingArguments` that would be left out, or change what is compared.
REFUSED = {
    "compute_loss_func": (LOSS, "measure it in compute_metrics"),
    "model_init": ("a model, which gets its gates once", "pass model=model_init()"),
    "label_smoothing_factor": (LOSS, "leave it out"),
    "neftune_noise_alpha": ("embeddings without noise, which would count as divergence", "leave it out"),
}


def require_honoured(args: SparsityConfig, options: dict[str, Any]) -> None:
    """Raise for an option that this trainer could only ignore."""
    for name, (expected, fix) in REFUSED.items():
        given = options.get(name) if name in options else getattr(args, name, None)
        if given not in (None, 0.0):
            raise refuse(f"{name}={getattr(given, '__name__', given)}", expected, fix)


def measuring_of(model: nn.Module, args: SparsityConfig) -> Measure:
    """How a run measures its model: the head, and the pooling of a sentence encoder.

    Raises: `GossamerError` for a ceiling or an agreement that means nothing on this head.
    """
    kind = args.ceiling.kind
    head = Head.of(model, embedding=kind in SENTENCES)
    require_meaning(kind, head.reads, head.model)
    if args.min_agreement and head.reads not in ("classes", "labels"):
        raise refuse(
            f"min_agreement={args.min_agreement:g} on {head.model}, which answers with numbers",
            "a head that answers with a class",
            "leave min_agreement out",
        )
    if kind == "pairwise" and min(args.train_batch_size, args.eval_batch_size) < 2:
        raise refuse("a pairwise ceiling on batches of one row", "two rows or more", "raise the batch size")
    if kind not in SENTENCES:
        return Measure(head)
    if args.pooling:
        return Measure(head, Pooling(tuple(args.pooling.split("+"))))
    inner = next((x for x in model.modules() if isinstance(x, PreTrainedModel)), None)
    return Measure(head, Pooling.of(getattr(inner, "name_or_path", "")))


def predictions(
    output: Any, inputs: dict[str, Any], columns: list[str], ignored: list[str]
) -> tuple[Any, Any]:
    """What a model answered and the labels of a batch, as `Trainer.prediction_step` returns them."""
    left_out = {"loss", "hidden_states", *ignored}
    answers = nested_detach(tuple(value for name, value in output.items() if name not in left_out))
    labels = tuple(inputs[name] for name in columns if inputs.get(name) is not None)
    whole = nested_detach(labels) if columns and len(labels) == len(columns) else None
    alone = (x[0] if x is not None and len(x) == 1 else x for x in (answers, whole))
    return next(alone), next(alone)
