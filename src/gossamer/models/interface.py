"""The two functions that transformers calls in place of its own: attention with gates, and the visible pairs.

Registered under one name, for an attention function without its mask function silently loses causality.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ..errors import UnsupportedModel, refuse
from ..gates.attention.blockwise import one_query
from ..gates.edges import EdgeGates

KEY = "edge_gate"  # must hold none of "flash", "sdpa", "flex_attention", "/" or "|": transformers reads those


def attention_modules(model: nn.Module) -> list[nn.Module]:
    """The modules whose forward looks up an attention implementation, in the model's own order."""
    return [m for m in model.modules() if _calls_interface(type(m).forward)]


@cache  # reading a source takes a millisecond, and a model has hundreds of modules of few classes
def _calls_interface(forward: Callable[..., Any]) -> bool:
    try:
        return "ALL_ATTENTION_FUNCTIONS.get_interface" in inspect.getsource(forward)
    except (OSError, TypeError):
        return False


@torch.compiler.disable  # noise in uint64, observers, and a bias that moves at every step: a compiled model breaks here
def edge_gate_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    output_attentions: bool | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every layer: (B, H, T, D) in, (B, T, H, E) out, no weights.

    Other keyword arguments of the attention interface (position ids, cache flags, the sliding window, which is
    already in the mask) are informational and are not used.
    """
    gates = getattr(module, EdgeGates.block, None)
    plain = attention_mask is softcap is s_aux is position_bias is None and not (dropout or output_attentions)
    if (
        plain
        and query.shape[2] == 1
        and gates is not None
        and scaling is not None
        and gates.are_plain(module, query)
    ):
        # A token of a generation: the whole way below costs several times what is computed for one query.
        return one_query(
            query, key, value, scale=scaling, bias=gates.bias, lse_share=gates.lse_share
        ).transpose(1, 2), None
    if gates is None:
        raise refuse(
            f"{type(module).__name__} runs attn_implementation={KEY!r} but has no gates",
            "a model with gates attached",
            "call gossamer.attach(model) or load it with gossamer.load(path)",
            UnsupportedModel,
        )
    if position_bias is not None:
        raise refuse(
            f"{type(module).__name__} adds a position bias to its logits",
            "models without one",
            "choose another architecture",
            UnsupportedModel,
        )
    if output_attentions or getattr(module.config, "output_attentions", False):
        raise refuse(
            "output_attentions=True on a gated model",
            "no such argument, as gossamer.trace lists the open edges with their weights",
            "drop output_attentions",
            UnsupportedModel,
        )
    causal = sees_the_past_only(module) if is_causal is None else bool(is_causal)
    out = gates.attend(
        module,
        query,
        key,
        value,
        mask=as_visible(attention_mask),
        causal=attention_mask is None and causal and query.shape[-2] > 1,
        scale=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        softcap=softcap,
        sinks=s_aux,
        dropout=dropout,
    )
    return out.transpose(1, 2).contiguous(), None


def sees_the_past_only(module: nn.Module) -> bool:
    """Whether an attention module is causal: `is_causal=False` in the config makes a decoder bidirectional."""
    everywhere = getattr(getattr(module, "config", None), "is_causal", True) is False
    return bool(getattr(module, "is_causal", False)) and not everywhere


def as_visible(mask: Tensor | None) -> Tensor | None:
    """A bool mask, True where an edge may exist, from a bool mask or an additive one of zeros and -large."""
    if mask is None or mask.dtype == torch.bool:
        return mask
    if not mask.is_floating_point():
        return mask != 0
    visible = mask == 0
    if not bool((visible | (mask <= torch.finfo(mask.dtype).min / 2)).all()):
        raise refuse(
            "an additive attention mask with values between 0 and -inf",
            "masks that only say where an edge may exist",
            "pass a bool mask, True where it may",
            UnsupportedModel,
        )
    return visible


def edge_gate_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    *args: Any,
    allow_is_causal_skip: bool = True,
    **kwargs: Any,
) -> Tensor | None:
    """The visible pairs, (B, 1, T, S) bool, or None where `is_causal` or full attention says it all.

    Without a mask `gated_attention` takes the last query to stand at the last key. A static cache has keys behind it
    to which nothing has been written, and says where it stands by a tensor. Rows of padded queries are emptied: they
    are not edges, and nothing that counts reads them.
    """
    ends_with_keys = isinstance(q_offset, int) and q_offset + q_length == kv_offset + kv_length
    kwargs["allow_is_causal_skip"] = allow_is_causal_skip and ends_with_keys
    mask = sdpa_mask(batch_size, q_length, kv_length, q_offset, kv_offset, *args, **kwargs)  # type: ignore[arg-type]
    tokens = kwargs.get("attention_mask")
    if mask is None or tokens is None or tokens.dim() != 2:
        return mask
    positions = torch.arange(mask.shape[-2], device=tokens.device) + q_offset
    if int(positions[-1]) >= tokens.shape[-1]:
        return mask
    return mask & tokens[:, positions].bool()[:, None, :, None]


AttentionInterface.register(KEY, edge_gate_attention)
AttentionMaskInterface.register(KEY, edge_gate_mask)
