"""What a model answers, in words and as what interventions compare: tokens, classes, or nothing that has a name.

A language model answers at every position with a token, a token classifier with a class; a classifier of rows has one
answer, told at the circuit's output positions. An encoder's hidden states have no names: they are told as nothing, and
no intervention can say whether they are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UnsupportedModel, refuse
from ..models.head import Head

Spelled = Callable[[Tensor], tuple[str, ...]]


def answers_in_words(
    model: PreTrainedModel, output: Tensor, length: int, outputs: Sequence[int], text: Spelled
) -> tuple[tuple[str, ...], ...]:
    """Per prompt, `length` strings, one a position; empty where the model answers nothing.

    Args:
        output: the model's first output, (N, T, K), (N, K) of a classifier of rows, (N, T, E) of an encoder.
        outputs: the positions that answer.
        text: turns (T,) token ids into T strings.
    """
    head = _head(model)
    if head.per == "embedding":
        return tuple(("",) * length for _ in output)
    if head.per == "token":
        top = output.argmax(-1).cpu()
        names = text if head.language else lambda row: tuple(_label(model, i) for i in row.tolist())
        return tuple(names(row) for row in top)
    told = (_row_in_words(model, head, row) for row in output.cpu())
    return tuple(tuple(one if at in outputs else "" for at in range(length)) for one in told)


def comparable(model: PreTrainedModel, output: Tensor, outputs: Sequence[int]) -> Tensor:
    """What must stay the same under an intervention, (N, answers) int64.

    Args:
        output, outputs: as for `answers_in_words`.
    Raises: `UnsupportedModel` for outputs that are numbers: two of them are never quite the same.
    """
    head = _head(model)
    if head.reads in ("values", "vectors"):
        raise refuse(
            f"{head.model} answers with numbers, and an intervention changes all of them a little",
            "a model that answers with tokens or classes",
            "compare its outputs yourself, with gates_of(model).using(keep=...)",
            UnsupportedModel,
        )
    if head.per == "token":
        return output[:, list(outputs)].argmax(-1)
    return (output > 0).long() if head.reads == "labels" else output.argmax(-1)[:, None]


def _head(model: PreTrainedModel) -> Head:
    """The model's head; one that is not known is read as that of a language model, as its shape allows."""
    try:
        return Head.of(model)
    except UnsupportedModel:
        return Head(type(model).__name__, language=True)


def _row_in_words(model: PreTrainedModel, head: Head, row: Tensor) -> str:
    """The one answer of a prompt, from its (K,) logits."""
    if head.reads == "values":
        return ", ".join(f"{value:.3g}" for value in row.tolist())
    if head.reads == "labels":
        return ", ".join(_label(model, i) for i in (row > 0).nonzero()[:, 0].tolist()) or "none"
    if head.per == "boundary":
        return str(int(row.argmax()))
    return _label(model, int(row.argmax()))


def _label(model: PreTrainedModel, index: int) -> str:
    return str((getattr(model.config, "id2label", None) or {}).get(index, index))
