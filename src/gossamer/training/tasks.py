"""The task of a model: what its head says, which ceiling is usual on it, and which rows of data it takes.

lm         causal language models        packed text             kl on the next token
mlm        masked language models        packed text, masked     kl on the masked tokens
classify   a row's class, labels, score  one text or pair a row  kl over classes, fvu of scores
tokens     a class of each token         one sentence a row      kl over classes
embed      sentence encoders             one text a row          cosine between embeddings
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..data.chat import chat_of
from ..data.examples import AUTO, Columns
from ..data.labels import Labels
from ..data.padded import Padded
from ..data.prompts import training_tokenizer
from ..data.splits import Splits
from ..data.text import Corpus
from ..errors import refuse, require_choice
from ..models.head import Head
from .constraint import MEANINGFUL, SENTENCES, Ceiling, require_meaning

TASKS = {
    "lm": "AutoModelForCausalLM",
    "mlm": "AutoModelForMaskedLM",
    "classify": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForTokenClassification",
    "embed": "AutoModel, or a folder of sentence-transformers",
}
USUAL = 0.02  # of a ceiling that is not named; assumed, in the unit of its kind


@dataclass(frozen=True)
class Task:
    """What a run does.

    Attributes:
        name: one of `TASKS`; empty for a head that has no labelled data here, such as question answering.
        head: what the model answers under it.
        why: what the name was taken from, in words.
        labels: names of the classes, labels or values.
    """

    name: str
    head: Head
    why: str
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module, asked: str = AUTO, ceiling: Ceiling | None = None) -> Task:
        """The task of a model.

        Args:
            asked: one of `TASKS`, or auto: embeddings under a ceiling on them, and else what the head is for.
        Raises: `GossamerError` for a task that the head cannot do, and for a ceiling that means nothing under it.
        """
        require_choice("task", asked, (AUTO, *TASKS))
        by_ceiling = asked == AUTO and ceiling is not None and ceiling.kind in SENTENCES
        head = Head.of(model, embedding=asked == "embed" or by_ceiling)
        name = _name(head)
        if asked not in (AUTO, name):
            raise refuse(
                f"--task {asked} on {head.model}, whose head is for {name or 'something else'}",
                f"a model of {TASKS[asked]}",
                "finetune one for the task first, or leave --task out",
            )
        if ceiling is not None:
            require_meaning(ceiling.kind, head.reads, f"the task {name}" if name else head.model)
        why = f"the ceiling on {ceiling.kind}" if by_ceiling and ceiling else head.model
        return cls(name, head, why if asked == AUTO else "--task", _labels(model) if name in LABELLED else ())

    @property
    def ceiling(self) -> Ceiling:
        """The usual ceiling."""
        return Ceiling(MEANINGFUL[self.head.reads][0], USUAL)

    def padded(self, tokenizer: Any, length: int) -> Padded | None:
        """Makes its rows of one example each; None where text is packed."""
        if self.name in ("lm", "mlm"):
            return None
        labels = Labels(self.labels, self.head.reads) if self.labels else None
        return Padded(tokenizer, length, labels=labels, words=self.name == "tokens")

    def columns(self, names: Mapping[str, str], tokenizer: Any) -> Columns:
        """What is read of tables."""
        return Columns(self.name or "embed", dict(names), chat_of(tokenizer))

    def require_labels(self, rows: Splits, ceiling: Ceiling) -> None:
        """Raise for a ceiling on a loss that rows without labels do not have."""
        if self.labels and not rows.labelled and ceiling.kind in LOSSES:
            possible = next(kind for kind in MEANINGFUL[self.head.reads] if kind not in LOSSES)
            raise refuse(
                f"the data have no labels, which a ceiling on {ceiling.kind} needs",
                f"a column of labels, or a ceiling on {possible}",
                "name the column with --column label=NAME",
            )

    def as_record(self, rows: Splits) -> dict[str, Any]:
        """Plain values, as report.json holds them."""
        labels = {"labels": list(self.labels), "labelled": rows.labelled} if self.labels else {}
        return {"name": self.name, "why": self.why, **labels}


LOSSES = ("loss", "delta_ce")
LABELLED = ("classify", "tokens")


def _name(head: Head) -> str:
    if head.language:
        return "lm" if head.causal else "mlm"
    if head.model.endswith(("ForMultipleChoice", "ForNextSentencePrediction")):
        return ""
    return {"row": "classify", "token": "tokens", "embedding": "embed"}.get(head.per, "")


def _labels(model: nn.Module) -> tuple[str, ...]:
    config: Any = next(x for x in model.modules() if isinstance(x, PreTrainedModel)).config
    return tuple(str(name) for _, name in sorted(config.id2label.items()))


def rows_for(
    task: Task, model: Any, tokenizer: Any, data: str, *, columns: Mapping[str, str], length: int, train: int,
    held_out: int, held_out_share: float = 0.05, encoding: str = "", stream: bool = False, seed: int = 0,
) -> Splits:  # fmt: skip
    """The data of a task in three splits; a decoder that classifies learns here which token is padding."""
    if task.head.per == "row" and model.config.get_text_config().pad_token_id is None:
        _tell_padding(model, tokenizer)
    corpus = Corpus(data, task.columns(columns, tokenizer), held_out_share=held_out_share, encoding=encoding)
    mask_token = tokenizer.mask_token_id if task.name == "mlm" else None
    if task.name == "mlm" and mask_token is None:
        raise refuse(f"{type(tokenizer).__name__} without a mask token", "one that the model was trained with",
                     "set tokenizer.mask_token and save it")  # fmt: skip
    return Splits(
        corpus, tokenizer, length, train=train, held_out=held_out, stream=stream,
        padded=task.padded(tokenizer, length), mask_token=mask_token, seed=seed,
    )  # fmt: skip


def corpus_of(settings: Mapping[str, Any], data: str, tokenizer: Any) -> Corpus:
    """The text of a run on data, by the settings that its report holds."""
    task = settings.get("task", "lm")
    names = settings.get(
        "columns", {"text": settings["field"]} if "field" in settings else {}
    )  # its earlier name
    columns = Columns("embed" if task == AUTO else task, names, chat_of(tokenizer))
    return Corpus(data, columns, encoding=settings.get("encoding", ""))


def _tell_padding(model: Any, tokenizer: Any) -> None:
    if tokenizer.pad_token_id is None:
        raise refuse(f"{type(model).__name__} and a tokenizer without a padding token",
                     "one, for rows of several lengths", "set tokenizer.pad_token and save it")  # fmt: skip
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def load_data(
    model: Any, data: str, tokenizer: Any = None, *, task: str = AUTO, ceiling: Ceiling | str | None = None,
    columns: Mapping[str, str] | None = None, length: int = 128, train: int = 8000, held_out: int = 64,
    held_out_share: float = 0.05, encoding: str = "", seed: int = 0,
) -> Splits:  # fmt: skip
    """Data as people have them, as rows to make a model sparse on: what `gossamer sparsify --data` reads.

        rows = load_data(model, "reviews.csv", columns={"text": "review"})
        sparsify(model, rows.train, rows.choose, SparsityConfig("run", ceiling="kl=0.02"))

    Args:
        model: of transformers; its head says the task.
        data: stdlib, a text, JSONL, CSV, parquet or CoNLL file, a folder of them, or a hub dataset.
        tokenizer: by default the one in the model's folder.
        task: auto, lm, mlm, classify, tokens or embed.
        ceiling: one on cosine or pairwise makes a sentence encoder of any model.
        columns: role -> column of a table, where it is not the usual one (`data/examples.py`).
        length: tokens a row; train: rows to learn from, at most; held_out: rows to choose by, and as many to report on.
    Raises: `GossamerError` for data that cannot be read, with the file and the row.
    """
    given = None if ceiling is None else Ceiling.of(ceiling)
    if tokenizer is None:
        tokenizer = training_tokenizer(model.name_or_path, model, length)
    found = Task.of(model, task, given)
    rows = rows_for(
        found, model, tokenizer, data, columns=columns or {}, length=length, train=train,
        held_out=held_out, held_out_share=held_out_share, encoding=encoding, seed=seed,
    )  # fmt: skip
    found.require_labels(rows, given or found.ceiling)
    return rows
