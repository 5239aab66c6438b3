"""The circuit of the model in a folder on a prompt: what `gossamer trace` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..circuits.circuit import Circuit
from ..circuits.trace import trace
from ..data.prompts import open_tokenizer
from ..errors import refuse
from .folders import open_model


def trace_prompt(folder: Path | str, prompt: str, **options: Any) -> Circuit:
    """The circuit of a model on one text, whose last position answers; the folder holds the tokenizer."""
    tokenizer = open_tokenizer(folder)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    if not ids.numel():
        raise refuse("an empty prompt", "possible: a text of one token or more", "write something")
    return trace(
        open_model(folder),
        ids,
        text=lambda row: tuple(tokenizer.convert_ids_to_tokens(row.tolist())),
        outputs=[-1],
        **options,
    )
