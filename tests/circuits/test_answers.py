"""What a traced model answers: tokens, classes by name, or nothing; and what an intervention may compare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, BertModel

from gossamer import prove, trace
from gossamer.errors import UnsupportedModel
from gossamer.models.attach import attach
from gossamer.viz.figure import draw_one, to_svg
from helpers.zoo import ENCODER

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [5, 5, 7, 30]])
NAMES = {0: "bad", 1: "good", 2: "neither"}


def model_of(cls: type, **changes: Any) -> Any:
    """A random BERT with a head, whose gates are half open."""
    torch.manual_seed(0)
    config = BertConfig(**ENCODER, initializer_range=0.5, id2label=NAMES, **changes)
    model = cls(config).eval()
    attach(model, bias=0.0)
    return model


def test_a_classifier_answers_with_the_name_of_its_class_at_the_output_alone() -> None:
    model = model_of(BertForSequenceClassification)
    circuit = trace(model, IDS, outputs=[0])
    classes = model(input_ids=IDS).logits.argmax(-1).tolist()
    assert circuit.answers == tuple((NAMES[i], "", "", "") for i in classes)
    drawn = to_svg(draw_one(circuit))
    assert f">{NAMES[classes[0]]}</text>" in drawn
    assert "∅" not in drawn


def test_a_token_classifier_answers_with_a_class_at_every_token() -> None:
    model = model_of(BertForTokenClassification)
    classes = model(input_ids=IDS).logits.argmax(-1).tolist()
    assert trace(model, IDS).answers == tuple(tuple(NAMES[i] for i in row) for row in classes)


@pytest.mark.parametrize(("problem", "expected"), [
    ("regression", lambda row: ", ".join(f"{x:.3g}" for x in row)),
    ("multi_label_classification", lambda row: ", ".join(NAMES[i] for i, x in enumerate(row) if x > 0) or "none"),
])  # fmt: skip
def test_scores_are_told_as_numbers_and_labels_as_names(problem: str, expected: Any) -> None:
    model = model_of(BertForSequenceClassification, problem_type=problem)
    logits = model(input_ids=IDS).logits.tolist()
    assert [row[-1] for row in trace(model, IDS, outputs=[3]).answers] == [expected(row) for row in logits]


def test_an_encoder_answers_nothing_that_has_a_name() -> None:
    circuit = trace(model_of(BertModel), IDS)
    assert circuit.answers == (("",) * 4,) * 3
    assert "output without words" in draw_one(circuit).description
    assert "∅" not in to_svg(draw_one(circuit))


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_the_circuit_of_a_classifier_is_proved_on_its_class(problem: str) -> None:
    model = model_of(BertForSequenceClassification, problem_type=problem)
    proof = prove(model, trace(model, IDS, outputs=[0]), IDS, smallest=False)
    assert proof.sufficient["prompt"].same == proof.n == 3
    assert 0 < proof.necessity.broken.sum() < len(proof.necessity.broken), (
        "an empty test: all or none is needed"
    )


def test_interventions_on_numbers_are_refused() -> None:
    for model in (model_of(BertModel), model_of(BertForSequenceClassification, problem_type="regression")):
        with pytest.raises(
            UnsupportedModel, match="answers with numbers, and an intervention changes all of them"
        ):
            prove(model, trace(model, IDS, outputs=[0]), IDS)
