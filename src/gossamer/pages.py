"""From folders and prompts to a page: the models are loaded, traced and handed to the viewer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .checkpoint import load, load_dense
from .circuit import Circuit
from .errors import refuse
from .trace import trace
from .viewer import view
from .viewer.addition import addition_of, view_addition
from .viewer.carries import carries_beside, read_carries


def view_folders(
    base: Path,
    sparse: Path,
    texts: Sequence[str] = (),
    *,
    start: str = "36+28",
    threshold: float = 0.01,
    carries: Path | None = None,
) -> str:
    """The page of two checkpoints: every sum if they add, else the prompts `texts`.

    Args:
        base, sparse: a dense and a gated checkpoint.
        texts: prompts for a language model, whose tokenizer lies with either checkpoint.
        start: the sum shown first.
        threshold: smallest softmax weight that counts as an edge of the dense language model.
        carries: what `gossamer verify` wrote about the sparse model; by default the file in its folder, if any.
    Raises: `GossamerError` if there is nothing to show.
    """
    dense, gated = load_dense(base), load(sparse, impl="blockwise")
    if addition_of(dense.config) is not None:
        words = carries_beside(sparse, gated) if carries is None else read_carries(carries, gated)
        return view_addition(dense, gated, start=start, carries=words)
    if carries is not None:
        raise refuse(
            "what edges carry, for a language model", "possible: models that add", "leave out --carries"
        )
    if not texts:
        raise refuse(
            "a language model and no prompt", "possible: one or more", "give --text, once per prompt"
        )
    tokenizer = tokenizer_of(sparse, base)
    circuits = [
        trace_texts(model, tokenizer, texts, threshold=least)
        for model, least in ((dense, threshold), (gated, 0.0))
    ]
    return view(*circuits)


def trace_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    threshold: float = 0.0,
) -> list[Circuit]:
    """One circuit per prompt, each traced alone, so that none is padded; the last token is the output."""
    inputs = [encode(tokenizer, text) for text in texts]
    shown = pieces(tokenizer)
    return [trace(model, ids, text=shown, outputs=(ids.shape[1] - 1,), threshold=threshold) for ids in inputs]


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
