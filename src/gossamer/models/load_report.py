"""What the weights of a folder lack or hold too much; transformers goes on with random numbers instead.

A file may hold more than its architecture has where that more is a head of another one of its family, as BERT's
pretraining heads are in the file of a `BertForMaskedLM`. Those are left out, with a warning.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import CheckpointError, GossamerError, GossamerWarning, refuse
from ..gates.kinds import kinds
from .gate_block import blocks_of

SHOWN = 3  # names in a message


def require_all_tensors(
    path: Path | str, model: PreTrainedModel, report: Mapping[str, Iterable[Any]]
) -> None:
    """Raise unless the weights of a folder are those that its config asks for, no fewer and no more.

    Args:
        report: what `from_pretrained(output_loading_info=True)` returns beside the model.
    Raises: `CheckpointError`.
    """
    missing = sorted(report["missing_keys"])
    if missing:
        raise wrong_tensors(path, f"lack {names(missing)}, which its config.json asks for")
    others = sorted(x[0] if isinstance(x, tuple) else x for x in report["mismatched_keys"])
    if others:
        raise wrong_tensors(path, f"have other shapes than its config.json says in {names(others)}")
    # The Trainer's checkpoints hold parameters of gates among the weights.
    own = tuple(f"{kinds()[kind].block}." for kind in blocks_of(model.config.__dict__, path))
    unexpected = sorted(x for x in report["unexpected_keys"] if not x.startswith(own))
    heads = _of_the_family(model) if unexpected else set()
    strange = [x for x in unexpected if x not in heads]
    if strange:
        raise wrong_tensors(path, f"hold {names(strange)}, for which {type(model).__name__} has no place")
    if unexpected:
        message = (
            f"{path} holds {names(unexpected)} of another architecture of its family; {type(model).__name__} "
        )
        warnings.warn(message + "runs without", GossamerWarning, stacklevel=4)


def require_adapter_tensors(folder: Path, model: Any) -> None:
    """Raise unless the adapters of a folder are those that its adapter_config.json asks for.

    Raises: `CheckpointError`.
    """
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    found = set(load_peft_weights(str(folder), device="cpu"))
    if missing := sorted(wanted - found):
        raise wrong_tensors(folder, f"lack {names(missing)}, which its adapter_config.json asks for")
    if strange := sorted(x for x in found - wanted if model.base_model.prefix in x):
        raise wrong_tensors(folder, f"hold {names(strange)}, for which the model has no place")


def wrong_tensors(path: Path | str, what: str) -> GossamerError:
    """The error for a folder whose weights are not those of its config."""
    return refuse(
        f"{path} cannot be loaded (its weights {what})",
        "a whole checkpoint",
        "copy it again, config.json and weights together",
        CheckpointError,
    )


def names(tensors: list[str]) -> str:
    """How many tensors, and the first of them by name."""
    rest = ", ..." if len(tensors) > SHOWN else ""
    return f"{len(tensors)} tensor{'s' * (len(tensors) != 1)} ({', '.join(tensors[:SHOWN])}{rest})"


def _of_the_family(model: PreTrainedModel) -> set[str]:
    """The names of all tensors of the architectures that are defined beside a model's and have its config."""
    found: set[str] = set()
    for cls in vars(sys.modules[type(model).__module__]).values():
        is_one = isinstance(cls, type) and issubclass(cls, PreTrainedModel)
        if is_one and cls.config_class is type(model).config_class and hasattr(cls, "forward"):
            try:
                with torch.device("meta"):
                    one = cls(model.config)
            except (AttributeError, NotImplementedError, TypeError, ValueError):
                continue  # a common base, or one that needs more than this config says
            found |= set(one.state_dict()) | {name for name, _ in one.named_buffers()}
    return found
