"""Every head has a divergence that means something, and training enforces the one that evaluation reports."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from gossamer.data.sequences import TensorRows, collate_rows
from gossamer.errors import GossamerError, UnsupportedModel
from gossamer.models.attach import gates_of
from gossamer.models.head import Head
from gossamer.training.config import SparsityConfig
from gossamer.training.sparsify import sparsify
from gossamer.training.trainer import SparsityTrainer
from helpers import zoo

pytestmark = pytest.mark.integration  # every head of every family is trained

ROWS, LENGTH = 12, 10


def inputs(pad: int = 0, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows of 3 to 10 tokens, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 90, (ROWS, LENGTH), generator=generator)
    lengths = torch.randint(3, LENGTH + 1, (ROWS, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    return {"input_ids": ids.masked_fill(mask == 0, pad), "attention_mask": mask}


def classes(*shape: int, most: int = 3) -> torch.Tensor:
    return torch.randint(0, most, shape, generator=torch.Generator().manual_seed(1))


def token_labels(most: int) -> torch.Tensor:
    """Some tokens have a label, and a row has one at least."""
    labels = classes(ROWS, LENGTH, most=most)
    labels[:, 3:] = -100
    return labels


# Name -> (head of the zoo or None for the family's own, settings, ceiling, labels).
Case = tuple[str | None, dict[str, Any], str, dict[str, torch.Tensor]]
CASES: dict[str, Case] = {
    "language": (None, {}, "kl", {"labels": token_labels(90)}),
    "classes": ("sequence", {"num_labels": 3}, "kl", {"labels": classes(ROWS)}),
    "several labels": (
        "sequence",
        {"num_labels": 3, "problem_type": "multi_label_classification"},
        "kl",
        {"labels": classes(ROWS, 3, most=2).float()},
    ),
    "reranker": ("sequence", {"num_labels": 1}, "fvu", {"labels": classes(ROWS, most=2)}),
    "regression": (
        "sequence",
        {"num_labels": 2, "problem_type": "regression"},
        "fvu",
        {"labels": torch.randn(ROWS, 2)},
    ),
    "token classes": ("tokens", {"num_labels": 3}, "kl", {"labels": token_labels(3)}),
    "token scores": ("tokens", {"num_labels": 1}, "fvu", {}),
    "answers": (
        "answers",
        {},
        "kl",
        {"start_positions": classes(ROWS), "end_positions": classes(ROWS, most=LENGTH + 5)},
    ),
    "embedding": ("hidden states", {}, "cosine", {}),
    "similarities": ("hidden states", {}, "pairwise", {}),
}
TEXT = [*zoo.DECODERS, *zoo.ENCODERS]
PAIRS = [
    (family, name, labelled)
    for name, (head, _, _, labels) in CASES.items()
    for labelled in ([True, False] if labels else [False])
    for family in TEXT
    if head is None or zoo.has_head(family, head)
]


def model_of(family: str, case: str, seed: int = 0) -> PreTrainedModel:
    head, settings, *_ = CASES[case]
    return zoo.build(family, seed) if head is None else zoo.headed(family, head, seed, **settings)


def trainer(folder: Path, model: PreTrainedModel, columns: dict[str, Any], **given: Any) -> SparsityTrainer:
    settings = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "gradient_accumulation_steps": 3,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    rows = TensorRows(**columns)
    args = SparsityConfig(output_dir=str(folder), **{**settings, "remove_unused_columns": False, **given})
    return SparsityTrainer(model, args, train_dataset=rows, eval_dataset=rows, data_collator=collate_rows)


def enforced(made: SparsityTrainer, columns: dict[str, torch.Tensor]) -> float:
    """The divergence of one optimizer step on all rows, cut as evaluation cuts them, on hard gates."""
    made.model.train()
    made.gates.sampling = False
    parts = [{name: x[i : i + 4] for name, x in columns.items()} for i in range(0, ROWS, 4)]
    batches, _ = made.get_batch_samples(iter(parts), len(parts), made.args.device)
    for batch in batches:
        made.compute_loss(made.model, batch)
    return float(torch.stack(made._window).mean(0)[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "case", "labelled"), PAIRS)
def test_training_enforces_what_evaluation_reports(
    tmp_path: Path, family: str, case: str, labelled: bool
) -> None:
    _, _, kind, labels = CASES[case]
    model = model_of(family, case)
    columns = inputs(zoo.pad_of(model)) | (labels if labelled else {})
    made = trainer(tmp_path, model, columns, ceiling=f"{kind}=0.02")
    made.gates.bias = 0.0
    measured = made.evaluate()
    assert measured["eval_divergence"] > 1e-6
    assert enforced(made, columns) == pytest.approx(measured["eval_divergence"], rel=0.01)
    made.gates.bias = math.inf
    assert made.evaluate()["eval_divergence"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_divergence_of_a_head_is_its_definition(tmp_path: Path, case: str) -> None:
    columns = inputs() | {name: x for name, x in CASES[case][3].items() if case != "language"}
    base, made = (model_of("bert", case), None)
    made = trainer(tmp_path, model_of("bert", case), columns, ceiling=f"{CASES[case][2]}=0.02")
    made.gates.bias = -1.0
    found = made.evaluate()["eval_divergence"]
    given = {name: columns[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        ours, theirs = (
            m(**given, output_hidden_states=True, return_dict=True) for m in (made.model.eval(), base)
        )
    assert found == pytest.approx(DEFINITIONS[case](ours, theirs, columns), rel=1e-4)


def softmax_kl(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    p, q = theirs.double().softmax(-1), ours.double().softmax(-1)
    return (p * (p / q).log()).nan_to_num().sum(-1)


def sigmoid_kl(ours: Any, theirs: Any, columns: Any) -> float:
    p, q = theirs.logits.double().sigmoid(), ours.logits.double().sigmoid()
    return float((p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(-1).mean())


def unexplained(ours: Any, theirs: Any, columns: Any) -> float:
    kept = columns["attention_mask"].bool() if theirs.logits.dim() == 3 else slice(None)
    x, y = ours.logits[kept].double(), theirs.logits[kept].double()
    return float(((x - y) ** 2).mean(0).div(y.var(0, correction=0)).mean())


def answers_kl(ours: Any, theirs: Any, columns: Any) -> float:
    padded, values = columns["attention_mask"] == 0, []
    for name in ("start", "end"):
        x, y = (m[f"{name}_logits"].masked_fill(padded, -torch.inf) for m in (ours, theirs))
        kept = columns[f"{name}_positions"] < LENGTH
        values.append(softmax_kl(x, y)[kept])
    return float(torch.cat(values).mean())


def embeddings(output: Any, columns: Any) -> torch.Tensor:
    mask = columns["attention_mask"][..., None]
    return (output.last_hidden_state * mask).sum(1) / mask.sum(1)


def cosine(ours: Any, theirs: Any, columns: Any) -> float:
    x, y = (embeddings(m, columns) for m in (ours, theirs))
    return float((1 - torch.cosine_similarity(x, y)).mean())


def pairwise(ours: Any, theirs: Any, columns: Any) -> float:
    changes, own = [], []
    for part in range(0, ROWS, 4):
        x, y = (
            torch.nn.functional.normalize(embeddings(m, columns)[part : part + 4]) for m in (ours, theirs)
        )
        off = ~torch.eye(4, dtype=torch.bool)
        changes.append((x @ x.T - y @ y.T)[off])
        own.append((y @ y.T)[off])
    return float(torch.cat(changes).square().mean() / torch.cat(own).double().var(correction=0))


DEFINITIONS: dict[str, Any] = {
    "language": lambda x, y, c: float(softmax_kl(x.logits, y.logits)[c["attention_mask"].bool()].mean()),
    "classes": lambda x, y, c: float(softmax_kl(x.logits, y.logits).mean()),
    "several labels": sigmoid_kl,
    "reranker": unexplained,
    "regression": unexplained,
    "token classes": lambda x, y, c: float(softmax_kl(x.logits, y.logits)[c["labels"] >= 0].mean()),
    "token scores": unexplained,
    "answers": answers_kl,
    "embedding": cosine,
    "similarities": pairwise,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert"])
@pytest.mark.parametrize("case", ["reranker", "regression", "answers", "similarities"])
def test_a_run_ends_with_a_model_that_answers_as_its_base(tmp_path: Path, family: str, case: str) -> None:
    if not zoo.has_head(family, str(CASES[case][0])):
        pytest.skip(f"transformers has no such head for {family}; comes back with one that does")
    columns = inputs() | CASES[case][3]
    rows = TensorRows(**columns)
    args = SparsityConfig(
        output_dir=str(tmp_path), ceiling=f"{CASES[case][2]}=0.05", max_steps=4, eval_steps=2, save_steps=2,
        per_device_train_batch_size=4, learning_rate=1e-3, remove_unused_columns=False, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    found = sparsify(model_of(family, case), rows, rows, args, data_collator=collate_rows)
    assert found.feasible
    given = {name: columns[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        ours, theirs = (m.eval()(**given) for m in (found.model, model_of(family, case)))
    assert DEFINITIONS[case](ours, theirs, columns) <= 0.05


@pytest.mark.parametrize(
    ("case", "kind", "message"),
    [
        (
            "reranker",
            "kl",
            "a ceiling on kl for BertForSequenceClassification, which answers with numbers: .*fvu",
        ),
        ("reranker", "delta_ce", "answers with numbers"),
        ("regression", "kl", "answers with numbers"),
        ("token scores", "kl", "answers with numbers"),
        ("embedding", "kl", "for BertModel, which answers with hidden states: .* cosine or pairwise"),
        ("classes", "fvu", "answers with probabilities: expected a ceiling on kl or delta_ce or loss"),
    ],
)
def test_a_ceiling_that_means_nothing_on_a_head_is_refused(
    tmp_path: Path, case: str, kind: str, message: str
) -> None:
    with pytest.raises(GossamerError, match=message):
        trainer(tmp_path, model_of("bert", case), inputs(), ceiling=f"{kind}=0.02")


@pytest.mark.parametrize(
    ("case", "labels", "message"),
    [
        ("language", classes(ROWS), r"int64 labels of shape \(4,\): expected \(4, 10\), one a token"),
        ("classes", token_labels(3), r"labels of shape \(4, 10\): expected \(4,\), one a row"),
        (
            "classes",
            torch.randn(ROWS, 3),
            "float32 labels .*: expected whole numbers. Set config.problem_type",
        ),
    ],
)
def test_labels_of_another_head_are_refused(
    tmp_path: Path, case: str, labels: torch.Tensor, message: str
) -> None:
    made = trainer(tmp_path, model_of("bert", case), inputs() | {"labels": labels}, ceiling="kl=0.02")
    with pytest.raises(GossamerError, match=message):
        made.evaluate()


def test_an_unknown_head_is_refused_and_one_made_from_a_known_one_is_not() -> None:
    import transformers as hf

    config = hf.BertConfig(**zoo.ENCODER)
    with pytest.raises(UnsupportedModel, match="BertForPreTraining has a head that is not known"):
        Head.of(hf.BertForPreTraining(config))

    class Reranker(hf.BertForSequenceClassification):
        pass

    assert Head.of(Reranker(hf.BertConfig(**zoo.ENCODER, num_labels=1))).reads == "values"


def test_scores_that_do_not_spread_are_refused(tmp_path: Path) -> None:
    model = model_of("bert", "reranker")
    torch.nn.init.zeros_(model.classifier.weight)
    made = trainer(tmp_path, model, inputs(), ceiling="fvu=0.02")
    with pytest.raises(GossamerError, match="a base model that says the same of every row"):
        made.evaluate()


def test_an_agreement_of_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GossamerError, match=r"min_agreement=0.9 on BertForSequenceClassification"):
        trainer(tmp_path, model_of("bert", "reranker"), inputs(), ceiling="fvu=0.02", min_agreement=0.9)


def test_images_are_classes(tmp_path: Path) -> None:
    pixels = torch.randn(ROWS, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    columns = {"pixel_values": pixels, "labels": classes(ROWS, most=5)}
    made = trainer(tmp_path, zoo.build("vit"), columns, ceiling="kl=0.02")
    made.gates.bias = 0.0
    assert enforced(made, columns) == pytest.approx(made.evaluate()["eval_divergence"], rel=0.01)
    assert gates_of(made.model).n_layers == 2
