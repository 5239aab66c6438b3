"""A prompt: one text as a model reads it, with the pieces that a person reads and the positions that answer.

Every way from a text to a table, a page, a server or an export goes through `Prompt`, so that one prompt has one
spelling everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers.decoders import ByteLevel
from torch import Tensor
from transformers import AutoTokenizer

from ..errors import GossamerError, UnsupportedModel, loading, refuse
from .frame import Frame
from .places import reaching
from .registry import task_vocabulary
from .trust import trusted, untrusted

# A folder without one of these has no tokenizer; transformers makes an empty one for it, and says nothing.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")

PROBE = "a B, 1\n\u00e9\u4e16\U0001f389"  # what a vocabulary has, and what it may lack


@dataclass(frozen=True)
class Prompt:
    """One text as a model reads it.

    Attributes:
        text: as it was given.
        ids: (1, T) token ids.
        pieces: T strings, the text that each token stands for.
        outputs: the positions that answer; for a text its last one, where the next token is told.
        spelled: other token ids, as those of answers, in the same spelling.
    """

    text: str
    ids: Tensor
    pieces: tuple[str, ...]
    outputs: tuple[int, ...]
    spelled: Callable[[Tensor], tuple[str, ...]]

    @classmethod
    def of(cls, text: str, tokenizer: Any, *, most: int | None = None) -> Prompt:
        """A text in the tokens of a tokenizer.

        Args:
            most: how many tokens it may have, such as the positions of the model.
        Raises: `GossamerError` for no token at all, for more than `most`, and for a lone surrogate.
        """
        require_text(text)
        ids = Frame.of(tokenizer).once(tokenizer(text)["input_ids"])
        if not ids:
            raise refuse("an empty prompt", "one token or more", "type something")
        if most is not None and len(ids) > most:
            raise refuse(f"a prompt of {len(ids):,} tokens", f"at most {most:,}", "shorten it")

        def spelled(some: Tensor) -> tuple[str, ...]:
            return pieces(tokenizer, some.tolist())

        return cls(text, torch.tensor([ids]), pieces(tokenizer, ids), (len(ids) - 1,), spelled)

    def __len__(self) -> int:
        return len(self.pieces)


def require_text(text: str, where: str = "a text") -> None:
    """Raise unless a text can be written as UTF-8; half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refuse(
            f"{where} with {text[error.start]!a}, half of a character", "whole characters", "remove it"
        ) from error


def pieces(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """Token ids as the pieces of text that they stand for, one by one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.decoder is None and "ByteLevel" in str(backend.pre_tokenizer):
        # Without a decoder of its own it would show a space as Ġ.
        return tuple(ByteLevel().decode([str(tokenizer.convert_ids_to_tokens(i))]) for i in ids)
    return tuple(str(tokenizer.decode([i])) for i in ids)


def open_tokenizer(*folders: Path | str) -> Any:
    """The tokenizer that lies in the first of these folders that has one, or of a hub id.

    Raises: `GossamerError` where there is none, or none that loads.
    """
    for folder in folders:
        if Path(folder).is_dir() and not any((Path(folder) / name).is_file() for name in TOKENIZER_FILES):
            continue
        tokenizer = _load_tokenizer(folder)
        if not tokenizer.vocab_size:
            raise refuse(f"{folder} has an empty tokenizer", "a model with its tokenizer", "save it again")
        return tokenizer
    raise refuse(
        f"no tokenizer in {' or '.join(map(str, folders))}",
        f"folders with tokenizer files, or models of the {len(task_vocabulary())} pieces of the tasks",
        "save it there: tokenizer.save_pretrained(folder)",
    )


def _load_tokenizer(folder: Path | str) -> Any:
    what, expected = f"the tokenizer of {folder}", "one that transformers reads"
    try:
        with loading(what, expected, "save it again", GossamerError), reaching(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted())
            tokenizer(PROBE)  # some values of its files are read by no one before
            return tokenizer
    except GossamerError as error:
        if "trust_remote_code" in str(error.__cause__):
            raise untrusted(folder, "a tokenizer") from error
        raise


def training_tokenizer(name: str, model: Any, length: int) -> Any:
    """The tokenizer of a model that is trained on rows of `length` tokens, checked against it.

    Raises: `GossamerError` where the two do not belong together, or the model has fewer positions.
    """
    tokenizer = open_tokenizer(name)
    if model.main_input_name != "input_ids":
        raise refuse(
            f"{type(model).__name__} reads {model.main_input_name}",
            "a model that reads token ids",
            "choose one of them, or use gossamer.sparsify with a data set of its own",
            UnsupportedModel,
        )
    vocabulary = model.config.get_text_config().vocab_size
    if len(tokenizer) > vocabulary:
        raise refuse(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, its model {vocabulary}",
            "a tokenizer and a model that belong together",
            "pass the folder that holds both",
        )
    positions = positions_of(model)
    if positions is not None and length > positions:
        raise refuse(f"length {length} on a model of {positions} positions", f"up to {positions}",
                     f"pass --length {positions}")  # fmt: skip
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def positions_of(model: Any) -> int | None:
    """How long a sequence a model can take; None where it does not say.

    RoBERTa and its kin count positions from behind their pad token, so that they take fewer than their config says.
    """
    config = model.config.get_text_config()
    message = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return message - first_position(model) if message else message


def first_position(model: Any) -> int:
    """The position of a text's first token: 0, or behind the pad token in RoBERTa and its kin."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return module.padding_idx + 1
    return 0
