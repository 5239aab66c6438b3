"""A folder of sentence-transformers: how it makes an embedding of token states, and the files that say so.

    modules.json                     the steps, in order: a transformer, a pooling, and perhaps a normalisation
    1_Pooling/config.json            which tokens make the embedding
    config_sentence_transformers.json, sentence_bert_config.json    prompts and lengths

A ceiling on embeddings is on those that a user of the folder gets, so its pooling is read; and a sparse folder keeps
these files, so that sentence-transformers opens it as it opens the base.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor

from ..errors import CheckpointError, GossamerWarning, UnsupportedModel, refuse, require_choice
from ..files import read_json

MODULES, POOLING = "modules.json", "1_Pooling"
FILES = (MODULES, "config_sentence_transformers.json", "sentence_*_config.json")
READ = ("Transformer", "Pooling", "Normalize")  # a normalised embedding has the same cosines


def _first(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden)), mask.long().argmax(1)]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden)), mask.shape[1] - 1 - mask.long().flip(1).argmax(1)]


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(~mask[..., None], torch.finfo(hidden.dtype).min).amax(1)


def _weighted(weight: Tensor, hidden: Tensor) -> Tensor:
    return (hidden * weight[..., None]).sum(1)


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return _weighted(mask.to(hidden.dtype), hidden) / mask.sum(1, keepdim=True).clamp_min(1)


def _mean_sqrt_len(hidden: Tensor, mask: Tensor) -> Tensor:
    return _weighted(mask.to(hidden.dtype), hidden) / mask.sum(1, keepdim=True).clamp_min(1).sqrt()


def _weightedmean(hidden: Tensor, mask: Tensor) -> Tensor:
    weight = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)  # a later token counts more
    return _weighted(weight.to(hidden.dtype), hidden) / weight.sum(1, keepdim=True).clamp_min(1)


# Name -> how it pools (B, T, E) over the tokens of a mask (B, T).
MODES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "cls": _first,
    "lasttoken": _last,
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weightedmean,
}
# The names of 1_Pooling/config.json, where each is true or false.
SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    **{f"pooling_mode_{mode}_tokens": mode for mode in ("mean", "max", "mean_sqrt_len", "weightedmean")},
}


@dataclass(frozen=True)
class Pooling:
    """How token states become the embedding of a sentence: one mode, or several side by side."""

    modes: tuple[str, ...] = ("mean",)

    def __post_init__(self) -> None:
        for mode in self.modes:
            require_choice("pooling", mode, MODES)

    @classmethod
    def of(cls, place: Path | str) -> Pooling:
        """The pooling of a folder or a hub id; the mean where it has none, as sentence-transformers takes it.

        Raises: `UnsupportedModel` for a step that changes embeddings and is not known here, `CheckpointError` for
            files that mean nothing.
        """
        folder = _folder_of(place, download=True)
        if folder is None:
            return cls()
        for kind, _ in _steps(folder):
            if kind not in READ:
                raise refuse(
                    f"{place} sends its embedding through a module {kind}",
                    f"a sentence encoder of {', '.join(READ)}",
                    "make the transformer sparse under a kl ceiling of its language model, or choose another encoder",
                    UnsupportedModel,
                )
        named = (path for kind, path in _steps(folder) if kind == "Pooling")
        file = folder / next(named, POOLING) / "config.json"
        return cls(_modes(file)) if file.is_file() else cls()

    def __call__(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, E) states of the tokens of a mask (B, T) as (B, E) embeddings; those of (B, E) are ones already."""
        if hidden.dim() == 2:
            return hidden
        tokens = torch.ones(hidden.shape[:2], device=hidden.device) if mask is None else mask
        return torch.cat([MODES[mode](hidden, tokens.bool()) for mode in self.modes], -1)


def keep_files(place: Path | str, target: Path) -> None:
    """Copy what sentence-transformers needs beside the model from a folder or hub id, if it is a sentence encoder."""
    folder = _folder_of(place, download=False)
    if folder is None or not (folder / MODULES).is_file():
        return
    for pattern in FILES:
        for file in folder.glob(pattern):
            shutil.copyfile(file, target / file.name)
    for kind, path in _steps(folder):
        if kind != "Transformer" and path and (folder / path).is_dir():
            shutil.copytree(folder / path, target / path, dirs_exist_ok=True)


def _steps(folder: Path) -> list[tuple[str, str]]:
    """The kind of each step and the folder it is in; none where modules.json is not there."""
    if not (folder / MODULES).is_file():
        return []
    steps = read_json(folder / MODULES, list[dict[str, Any]])
    if not all(isinstance(x.get("type"), str) for x in steps):
        raise refuse(f"{folder / MODULES} is no list of modules", "what sentence-transformers wrote",
                     "copy it again", CheckpointError)  # fmt: skip
    found = [(x["type"].rpartition(".")[2], str(x.get("path", ""))) for x in steps]
    for _, path in found:
        if path in (".", "..") or Path(path).name != path:
            raise refuse(
                f"{folder / MODULES} names the folder {path!r}",
                "folders beside it",
                "check it",
                CheckpointError,
            )
    return found


def _modes(file: Path) -> tuple[str, ...]:
    config: Any = read_json(file)
    given = config.get("pooling_mode", ()) if isinstance(config, dict) else ()
    modes = [str(mode).removesuffix("_tokens") for mode in ([given] if isinstance(given, str) else given)]
    modes += [
        mode for name, mode in SWITCHES.items() if isinstance(config, dict) and config.get(name) is True
    ]
    if not modes or not set(modes) <= set(MODES):
        raise refuse(
            f"{file} pools by {modes or 'nothing'}",
            f"some of {', '.join(MODES)}",
            "check it",
            CheckpointError,
        )
    return tuple(modes)


def _folder_of(place: Path | str, *, download: bool) -> Path | None:
    """Where these files are: the folder itself, or the cache of a hub id; None where they cannot be had."""
    if not str(place) or Path(place).is_dir():
        return Path(place) if str(place) else None
    try:
        patterns = [*FILES, "*_*/config.json"]
        return Path(snapshot_download(str(place), allow_patterns=patterns, local_files_only=not download))
    except (OSError, ValueError) as error:
        if download:
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            message = f"the pooling of {place} cannot be read ({line}), so it is taken for the mean; else pass pooling"
            warnings.warn(message, GossamerWarning, stacklevel=4)
        return None
