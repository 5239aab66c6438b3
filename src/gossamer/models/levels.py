"""Which level of smallness each kind of gate of a model can take: tried on the architecture, not known by name.

A config with the count must build a model of exactly the shapes that cutting gives. Each kind takes the strongest
level that it can; the model is named by the strongest of its kinds. Single weights have no shape and are always masked.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import GossamerError, UnsupportedModel, refuse
from .anatomy import Anatomy
from .cut import Kept, cut, require_own_sizes
from .forward import device_of

UNIFORM, PER_LAYER, MASKED = LEVELS = ("uniform", "per-layer", "masked")
PLAIN = (UNIFORM, MASKED)  # opened by plain transformers
CUT = ("heads", "neurons")  # the kinds whose units have rows and columns
WIDTHS = ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim")  # how configs call the width of an MLP
# What a config that cannot have a size raises, in some architectures as late as in their modules.
CANNOT = (
    ValueError, AssertionError, RuntimeError, TypeError, ZeroDivisionError, AttributeError, KeyError,
    StrictDataclassError,
)  # fmt: skip

Opened = dict[str, dict[int, Tensor]]  # kind -> layer -> bool, the units that are open


@dataclass
class Plan:
    """What becomes of each kind of gate.

    Attributes:
        level: of the whole; parts: of each kind.
        kept: by layer, what stays.
        settings: of the config, for level uniform.
        why: of a kind, why it is not uniform.
    """

    level: str = MASKED
    parts: dict[str, str] = field(default_factory=dict)
    kept: dict[int, Kept] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether plain transformers opens the model."""
        return self.level in PLAIN

    def block(self) -> dict[str, Any]:
        """What config.json says of it; sizes of layers in the words of `per_layer_config` of transformers."""
        said: dict[str, Any] = {"version": 1, "level": self.level, "parts": self.parts}
        if self.level == PER_LAYER:
            said["per_layer_config"] = {str(n): kept.counts() for n, kept in self.kept.items()}
        return said


def choose(model: PreTrainedModel, opened: Opened, level: str | None, *, edges: bool) -> Plan:
    """The level of a folded model and of each kind, and what stays.

    Args:
        opened: the units that are open.
        level: what every kind that has a shape must take; None for the strongest of each.
        edges: whether the model keeps gates on edges.
    """
    closed = [kind for kind, layers in opened.items() if not all(bool(x.all()) for x in layers.values())]
    if not closed:
        raise refuse("every gate of the model is open", "closed units, which can go", "train it longer")
    if edges and level in PLAIN:
        raise refuse(
            f"level {level} for a model with gates on edges, which have no place in a plain checkpoint",
            f"level {PER_LAYER}, which keeps them for gossamer.load",
            f"pass --level {PER_LAYER}, or train without gates on edges",
        )
    kinds = [kind for kind in CUT if kind in closed]
    uniform, each = Plan(UNIFORM), Plan(PER_LAYER)
    for kind in kinds:
        _add_uniform(model, kind, opened[kind], uniform)
        _add_per_layer(model, kind, opened[kind], each)
    plans = {UNIFORM: uniform, PER_LAYER: each, MASKED: Plan(MASKED)}
    wanted = [level] if level else [x for x in LEVELS if not (edges and x in PLAIN)]
    found = next((x for x in wanted if x == MASKED or (edges and x == PER_LAYER) or plans[x].parts), MASKED)
    plan = plans[found]
    if level in (UNIFORM, PER_LAYER):
        _require_all(plans, kinds, level, edges=edges)
        plan = plans[level]
    plan.why = uniform.why
    plan.parts = {kind: plan.parts.get(kind, MASKED) for kind in closed}
    return plan


def _require_all(plans: Mapping[str, Plan], kinds: list[str], level: str, *, edges: bool) -> None:
    """Raise unless every closed kind that has a shape can take a level."""
    missing = [kind for kind in kinds if kind not in plans[level].parts]
    if (kinds and not missing) or (edges and not kinds):
        return
    able = [x for x in LEVELS if x == MASKED or (kinds and all(kind in plans[x].parts for kind in kinds))]
    kind = missing[0] if missing else "weights"
    why = plans[level].why.get(kind, "single weights have no shape")
    raise refuse(
        f"level {level} for {kind}: {why}",
        f"level {' or '.join(able)}",
        "pass that, or leave --level out for the strongest of each kind",
    )


def _add_uniform(model: PreTrainedModel, kind: str, opened: dict[int, Tensor], plan: Plan) -> None:
    candidates = _head_counts(model, opened) if kind == "heads" else _widths(model, opened)
    reasons = []
    for kept, settings in candidates:
        reasons.append(_cannot(model, kept, settings))
        if not reasons[-1]:
            _merge(plan, kind, UNIFORM, kept)
            plan.settings |= settings
            return
    plan.why[kind] = reasons[0] if reasons else "the layer with most open ones has all of them open"


def _head_counts(
    model: PreTrainedModel, opened: dict[int, Tensor]
) -> Iterator[tuple[dict[int, Kept], dict[str, Any]]]:
    """Counts of heads that hold the open ones of every layer, the fewest first, with what the config says then."""
    layers = list(Anatomy.of(model))
    heads, groups = layers[0].n_heads, layers[0].n_kv_heads
    least = [_needed(opened[layer.number], layer.n_kv_heads) for layer in layers]
    least_groups, least_sharing = (max(x) for x in zip(*least, strict=True))
    counts = [
        (g, r)
        for g in range(least_groups, groups + 1)
        for r in range(least_sharing, heads // groups + 1)
        if (g, r) != (groups, heads // groups)
    ]
    for g, r in sorted(counts, key=lambda x: (x[0] * x[1] + x[0], x)):
        kept = {x.number: _heads_kept(opened[x.number], x.n_kv_heads, g, r) for x in layers}
        settings = {"num_attention_heads": g * r, "head_dim": layers[0].head_dim}
        if hasattr(model.config, "num_key_value_heads"):
            settings["num_key_value_heads"] = g
        yield kept, settings


def _widths(
    model: PreTrainedModel, opened: dict[int, Tensor]
) -> Iterator[tuple[dict[int, Kept], dict[str, Any]]]:
    """The count of neurons that holds the open ones of every layer, under each name that the config may have for it."""
    width = max(1, *(int(x.sum()) for x in opened.values()))
    if width == len(next(iter(opened.values()))):
        return
    kept = {layer: Kept(neurons=_filled(x, width)) for layer, x in opened.items()}
    for name in WIDTHS:
        if hasattr(model.config, name):
            yield kept, {name: width}


def _add_per_layer(model: PreTrainedModel, kind: str, opened: dict[int, Tensor], plan: Plan) -> None:
    kept = {}
    for layer in Anatomy.of(model):
        x = opened[layer.number]
        if kind == "heads":
            kept[layer.number] = _heads_kept(x, layer.n_kv_heads, *_needed(x, layer.n_kv_heads))
        else:
            kept[layer.number] = Kept(neurons=_filled(x, max(1, int(x.sum()))))
    if all(bool(stay.all()) for one in kept.values() for stay in one if stay is not None):
        plan.why[kind] = "query heads that are open read every key-value head, as many each"
        return
    try:
        cut(_empty(type(model), model.config), kept)
        require_own_sizes(model, kept)
    except UnsupportedModel as error:
        plan.why[kind] = str(error).partition(": expected")[0]
        return
    _merge(plan, kind, PER_LAYER, kept)


def _merge(plan: Plan, kind: str, level: str, kept: dict[int, Kept]) -> None:
    plan.parts[kind] = level
    for layer, more in kept.items():
        old = plan.kept.get(layer, Kept())
        plan.kept[layer] = Kept(*(a if b is None else b for a, b in zip(old, more, strict=True)))


def _needed(opened: Tensor, groups: int) -> tuple[int, int]:
    """(key-value heads, query heads that read each) that hold the open query heads of a layer; at least one."""
    by_group = opened.view(groups, -1).sum(1)
    return max(1, int((by_group > 0).sum())), max(1, int(by_group.max()))


def _heads_kept(opened: Tensor, groups: int, n_groups: int, sharing: int) -> Kept:
    """The open heads of a layer and as many closed ones as make it regular."""
    by_group = opened.view(groups, -1)
    stay = _filled(by_group.any(1), n_groups)
    heads = torch.stack([_filled(x, sharing) & stays for x, stays in zip(by_group, stay, strict=True)])
    return Kept(heads.flatten(), stay)


def _filled(opened: Tensor, count: int) -> Tensor:
    """The open units and the first closed ones, `count` in all."""
    order = (~opened).to(torch.int8).argsort(stable=True)
    stay = torch.zeros_like(opened)
    stay[order[:count]] = True
    return stay


# ---- whether a config can say it ----


def _cannot(model: PreTrainedModel, kept: Mapping[int, Kept], settings: Mapping[str, Any]) -> str:
    """Why the architecture cannot be built with these settings and the shapes that cutting gives; empty if it can."""
    said = " and ".join(f"{name}={value}" for name, value in settings.items())
    try:
        before = _empty(type(model), model.config)
        cut(before, kept)
        built = _empty(type(model), _config(model.config, settings))
    except CANNOT as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        reason = str(error).partition(": expected")[0] if isinstance(error, GossamerError) else line
        return f"{type(model).__name__} cannot be built with {said} ({reason.rstrip('.')})"
    shapes = [{name: tuple(x.shape) for name, x in one.state_dict().items()} for one in (before, built)]
    if shapes[0] != shapes[1]:
        return f"{type(model).__name__} with {said} has other shapes"
    return ""


def _empty(cls: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    """A model without numbers."""
    with torch.device("meta"):
        return cls(copy.deepcopy(config))


def _config(config: Any, settings: Mapping[str, Any]) -> Any:
    """A config with other sizes, as a reader of its file has it."""
    changed = copy.deepcopy(config)
    for name, value in settings.items():
        setattr(changed, name, value)
    return type(config).from_dict(changed.to_dict())


def rebuilt(model: PreTrainedModel, settings: Mapping[str, Any]) -> PreTrainedModel:
    """The architecture, built by its config with other sizes, with the weights of a model that was cut to them."""
    config = _config(model.config, settings)
    config._attn_implementation = model.config._attn_implementation
    made: PreTrainedModel = type(model)(config)
    made.to(device=device_of(model), dtype=model.dtype)  # type: ignore[call-arg]
    made.load_state_dict(model.state_dict())
    if model.can_generate():
        made.generation_config = model.generation_config
    return made
