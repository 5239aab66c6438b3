"""From a text to the tokens that a model reads, and back to the pieces that a person reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..errors import refuse
from .registry import task_vocabulary


def load_tokenizer(name: str, model: Any, length: int) -> Any:
    """The tokenizer of a model, checked against it."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise refuse(
            f"{name} has no tokenizer that can be loaded", "possible: a model with its tokenizer", "add one"
        ) from error
    config = model.config.get_text_config()
    if (
        not tokenizer.vocab_size
    ):  # transformers makes an empty one, of its class alone, where there are no files
        raise refuse(f"{name} has no tokenizer files", "possible: a model with its tokenizer", "add them")
    if len(tokenizer) > config.vocab_size:
        raise refuse(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, its model {config.vocab_size}",
            "possible: a tokenizer and a model that belong together",
            "pass the folder that holds both",
        )
    positions = positions_of(model)
    if positions is not None and length > positions:
        raise refuse(f"length {length} on a model of {positions} positions", f"possible: up to {positions}",
                     f"pass --length {positions}")  # fmt: skip
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def positions_of(model: Any) -> int | None:
    """How long a sequence a model can take; None where it does not say.

    RoBERTa and its kin count positions from behind their pad token, so that they take fewer than their config says.
    """
    config = model.config.get_text_config()
    told = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return told - module.padding_idx - 1
    return told


def open_tokenizer(folder: Path | str) -> Any:
    """The tokenizer of a folder or hub id."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
    # transformers makes an empty tokenizer for a folder without one, and says nothing.
    if Path(folder).is_dir() and not any((Path(folder) / name).is_file() for name in names):
        raise refuse(
            f"{folder} has no tokenizer",
            f"possible: folders with tokenizer files, or models of the {len(task_vocabulary())} pieces of the tasks",
            "save the tokenizer there too",
        )
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise refuse(f"{folder}: {line}", "possible: a tokenizer that loads", "save it again") from error


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> Tensor:
    """A prompt as (1, T) token ids."""
    ids = tokenizer(text)["input_ids"]
    if not ids:
        raise refuse("an empty prompt", "possible: one token or more", "type something")
    return torch.tensor([ids])


def pieces(tokenizer: PreTrainedTokenizerBase) -> Callable[[Tensor], tuple[str, ...]]:
    """Token ids as the pieces of text they stand for, one by one."""
    return lambda ids: tuple(str(tokenizer.decode([i])) for i in ids.tolist())


def tokenizer_of(*folders: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that lies in the first folder that has one."""
    for folder in folders:
        if (folder / "tokenizer_config.json").is_file():
            return AutoTokenizer.from_pretrained(folder)
    raise refuse(
        f"no tokenizer in {' or '.join(map(str, folders))}",
        "possible: a folder with tokenizer_config.json",
        "save it there: tokenizer.save_pretrained(folder)",
    )
