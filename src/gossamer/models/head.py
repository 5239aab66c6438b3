"""The head of a model: what its output is, and which predictions of a batch count.

Letters: B batch row, T position, K classes, labels or values, E embedding width. One prediction is an item:

    token      logits (B, T, K)        one item a token: language models, masked ones, token classification
    row        logits (B, K)           one item a row: sequences, images, choices
    boundary   logits (B, 2, T)        two items a row, its start and its end: question answering
    embedding  hidden states (B, T, E), or embeddings (B, E): one item a row

Logits are read as `classes` (softmax), `labels` (a sigmoid each) or `values` (numbers, as of a regression or of a
reranker with one label). Training, evaluation and report ask `Head.items` what counts, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import find_labels

from ..data.sequences import IGNORED
from ..errors import UnsupportedModel, refuse

BASE_OUTPUT = "base_output"  # a column of the batch that holds the base model's output, computed beforehand
CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
LANGUAGE = (*CAUSAL, "ForMaskedLM")
# By the end of a class's name in transformers; classifiers of `LABELLED` say in their config how logits are read.
PER = {
    **dict.fromkeys((*LANGUAGE, "ForTokenClassification"), "token"),
    **dict.fromkeys(("ForSequenceClassification", "ForImageClassification"), "row"),
    **dict.fromkeys(("ForNextSentencePrediction", "ForMultipleChoice"), "row"),
    "ForQuestionAnswering": "boundary",
}
LABELLED = ("ForTokenClassification", "ForSequenceClassification", "ForImageClassification")
BOUNDARIES = ("start_positions", "end_positions")


@dataclass(frozen=True)
class Head:
    """What a model answers.

    Attributes:
        model: the name of its class.
        per: what one prediction is of: token, row, boundary or embedding.
        reads: how logits are read: classes, labels, values; vectors for an embedding.
        causal: position t predicts label t + 1.
        language: whether its classes are the vocabulary.
        columns: the names of the labels in a batch, which the model must not see.
    """

    model: str = "a model"
    per: str = "token"
    reads: str = "classes"
    causal: bool = False
    language: bool = False
    columns: tuple[str, ...] = ("labels",)

    @classmethod
    def of(cls, model: nn.Module, *, embedding: bool = False) -> Head:
        """The head of a model.

        Args:
            embedding: read the last hidden states, whatever head is on them.
        Raises: `UnsupportedModel` for a head that is not known here.
        """
        inner = next((x for x in model.modules() if isinstance(x, PreTrainedModel)), model)
        name, found = type(inner).__name__, _ending(inner)
        bare = found is None and getattr(inner, "base_model", None) is inner
        columns = tuple(dict.fromkeys(("labels", *find_labels(type(inner)))))
        if embedding or bare:
            return cls(name, "embedding", "vectors", columns=columns)
        if found is None:
            raise refuse(
                f"{name} has a head that is not known",
                f"a model without a head, or one of {', '.join(PER)}",
                "take out its part that is one of those",
                UnsupportedModel,
            )
        reads = _reads(inner.config) if found in LABELLED else "classes"
        columns += BOUNDARIES if PER[found] == "boundary" else ()
        return cls(name, PER[found], reads, found in CAUSAL, found in LANGUAGE, tuple(dict.fromkeys(columns)))

    def features(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The batch without what the model must not see: it would compute a second loss from the labels."""
        return {name: value for name, value in inputs.items() if name not in (*self.columns, BASE_OUTPUT)}

    def run(self, model: nn.Module, inputs: dict[str, Any]) -> Any:
        """The model's whole output on a batch."""
        states = {"output_hidden_states": True} if self.per == "embedding" else {}
        return model(**self.features(inputs), **states, return_dict=True)

    def answer(self, output: Any) -> Tensor:
        """What an output says, as one tensor: see the module docstring."""
        if self.per == "boundary":
            return torch.stack([output["start_logits"], output["end_logits"]], 1)
        if self.per == "embedding":
            return (
                output["last_hidden_state"] if "last_hidden_state" in output else output["hidden_states"][-1]
            )
        return output["logits"] if "logits" in output else output[0]

    def targets(self, inputs: dict[str, Any]) -> Tensor | None:
        """The labels of a batch, one an item, or (..., K) of labels and values; None without labels.

        -100 is where there is nothing to predict: (B, T), shifted by one in a causal model, (B,) or (B, 2).
        Raises: `GossamerError` for labels of another shape or kind than the head's.
        """
        if self.per == "boundary":
            return self._boundary_targets(inputs)
        labels = inputs.get("labels")
        if labels is None or self.per == "embedding":
            return None
        if self.reads != "classes":
            return labels.reshape(*self._shape(inputs), -1)
        if labels.is_floating_point():
            raise self._unfit(labels, "whole numbers", "set config.problem_type, or give the classes")
        if self.per == "row" and labels.shape == (*self._shape(inputs), 1):
            labels = labels[:, 0]
        if labels.shape != self._shape(inputs):
            raise self._unfit(labels, f"{tuple(self._shape(inputs))}, one a {self.per}", "check the data")
        if not self.causal:
            return labels
        return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORED)], 1)

    def items(self, inputs: dict[str, Any]) -> Tensor:
        """Which predictions count, told from the batch alone: bool, (B, T), (B, 2) or (B,).

        Those with a label where there are labels, else all that are of no padding.
        """
        targets = self.targets(inputs)
        if targets is not None and self.reads == "classes":
            return targets != IGNORED
        shape = self._shape(inputs)
        if self.per == "token":
            mask = self.unpadded(inputs)
            return (
                torch.ones(shape, dtype=torch.bool, device=first_tensor(inputs).device)
                if mask is None
                else mask
            )
        return torch.ones(shape, dtype=torch.bool, device=first_tensor(inputs).device)

    def unpadded(self, inputs: dict[str, Any]) -> Tensor | None:
        """(B, T) bool, the tokens that are no padding; None where all are."""
        mask = inputs.get("attention_mask")
        if mask is None:
            return None
        if mask.dim() != 2:
            raise refuse(
                f"an attention_mask of shape {tuple(mask.shape)}, which does not say what is padding",
                "(B, T), or labels",
                "add labels, -100 at padding",
            )
        return mask.bool()

    def _boundary_targets(self, inputs: dict[str, Any]) -> Tensor | None:
        given = [inputs[name] for name in BOUNDARIES if inputs.get(name) is not None]
        if len(given) < len(BOUNDARIES):
            return None
        targets = torch.stack([x.reshape(-1) for x in given], 1)
        outside = (targets < 0) | (
            targets >= _tokens(inputs).shape[1]
        )  # no answer in this row, as transformers has it
        return targets.masked_fill(outside, IGNORED)

    def _shape(self, inputs: dict[str, Any]) -> torch.Size:
        """The shape of the items of a batch."""
        tokens = _tokens(inputs)
        if self.per == "token":
            return tokens.shape[:2]
        return torch.Size([len(tokens), 2] if self.per == "boundary" else [len(tokens)])

    def _unfit(self, labels: Tensor, expected: str, fix: str) -> Exception:
        kind = str(labels.dtype).removeprefix("torch.")
        return refuse(f"{self.model} with {kind} labels of shape {tuple(labels.shape)}", expected, fix)


def is_causal_language_model(model: nn.Module) -> bool:
    """Whether a model's head predicts the next token."""
    return _ending(model) in CAUSAL


def _ending(model: nn.Module) -> str | None:
    """By which of `PER` the name of a model's class ends; a subclass has the head of what it is made from."""
    names = [kind.__name__ for kind in type(model).__mro__]
    return next((end for name in names for end in PER if name.endswith(end)), None)


def first_tensor(inputs: dict[str, Any]) -> Tensor:
    """Any tensor of a batch: its rows and its device are the batch's."""
    return next(x for x in inputs.values() if isinstance(x, Tensor))


def _tokens(inputs: dict[str, Any]) -> Tensor:
    """What the model reads, (B, T, ...)."""
    for name in ("input_ids", "inputs_embeds"):
        if inputs.get(name) is not None:
            return inputs[name]
    return first_tensor(inputs)


def _reads(config: Any) -> str:
    """How a classifier's logits are read: as transformers does, and one label alone is a number."""
    given = getattr(config, "problem_type", None)
    if given == "multi_label_classification":
        return "labels"
    return "values" if given == "regression" or config.num_labels == 1 else "classes"
