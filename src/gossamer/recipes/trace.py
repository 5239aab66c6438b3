"""The circuit of the model in a folder on a text: what `gossamer trace` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..circuits.circuit import Circuit
from ..circuits.trace import trace_prompt
from ..data.prompts import Prompt, open_tokenizer, positions_of
from .folders import open_model


def trace_text(folder: Path | str, text: str, **options: Any) -> Circuit:
    """The circuit of a model on one text, whose last position answers; the folder holds the tokenizer."""
    model, tokenizer = (
        open_model(folder),
        open_tokenizer(folder),
    )  # what is wrong with config.json is said first
    return trace_prompt(model, Prompt.of(text, tokenizer, most=positions_of(model)), **options)
