"""Named recipes: those that made the published numbers, each with the record of what came out of it.

A published run also has settings of the optimizer, which are `TrainingArguments` and stand in the record's script.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import refuse, require_choice
from .recipe import PARTS, CeilingRecipe, ControlRecipe, GateRecipe, LogitRecipe, RateRecipe, Recipe


@dataclass(frozen=True)
class Preset:
    """A recipe with its purpose and the record of what came out of it."""

    purpose: str
    record: str
    recipe: Recipe


DEFAULT_RECIPE = Recipe(
    gate=GateRecipe(anneal=0.6, pace="proportional", noise_until=0.0, last_cut=0.5),
    control=ControlRecipe(kp=0.5),
    rate=RateRecipe(patience=0.2),
)
ADDITION = Recipe(
    gate=GateRecipe(
        reads="logit",
        bias=-4.0,
        anneal=0.065,
        pace="always",
        regrow_bias=2.0,
        layer_price_slope=3.0,
        regrow_price_slope=0.4,
        least_slope=0.05,
    ),
    ceiling=CeilingRecipe(
        initial_factor=400.0, tighten_from=0.085, tighten_until=0.27, tighten_pace="slow_when_violated"
    ),
    control=ControlRecipe(
        ki=0.02,
        kp=0.5,
        initial_lambda=1.0,
        lambda_bounds=(0.0155, 1.0),
        final_lambda_bounds=(0.3, 30.0),
    ),
    rate=RateRecipe(full_above=25.0, settle=0.06, final=0.03),
    logits=LogitRecipe(limit=8.0, weight=1.2e-4),
)

PRESETS: dict[str, Preset] = {
    "default": Preset(
        "any pretrained model: what gates read, where their bias starts and what an edge costs are measured; the bias "
        "rests where the ceiling holds",
        "benchmarks/experiments/gate_reads/results/default.md",
        DEFAULT_RECIPE,
    ),
    "addition": Preset(
        "a small model that adds: over-prune under a loose ceiling, then regrow",
        "benchmarks/experiments/addition/results/addition_seeds_40-59.md",
        ADDITION,
    ),
    "addition_few_heads": Preset(
        "the same, for a model whose heads go next: later heads cost more until the ceiling is tight, so edges gather "
        "in few",
        "benchmarks/experiments/structure/results/addition_seeds_128-152.md",
        ADDITION.with_settings({"gate.head_price_slope": 0.5}),
    ),
    "addition_structure": Preset(
        "the same with gates on heads and neurons too: neurons go from the start, heads as the ceiling tightens; fewer "
        "heads cost edges",
        "benchmarks/experiments/structure/results/addition_seeds_75-79.md",
        ADDITION.with_settings(
            {
                "gate.price": "edges=10,heads=2,neurons=1,weights=1",
                "gate.parents_from": 0.4,
                "gate.learning_rate": 0.15,
                "rate.settle": 0.12,
            }
        ),
    ),
    "addition_units": Preset(
        "heads and neurons of a model that adds with few edges, which keep their price: neurons go from the start, "
        "heads as the ceiling tightens",
        "benchmarks/experiments/structure/results/addition_seeds_128-152.md",
        ADDITION.with_settings(
            {
                "gate.price": "edges=10,heads=1,neurons=1",
                "gate.bias": 0.0,
                "gate.regrow_bias": 0.0,
                "gate.layer_price_slope": 0.0,
                "gate.regrow_price_slope": 0.0,
                "gate.parents_from": 0.5,
                "gate.learning_rate": 0.15,
                "rate.settle": 0.12,
            }
        ),
    ),
    "addition_weights": Preset(
        "the same with gates on single weights too, which go in numbers while the ceiling is loose; fewer weights cost "
        "edges",
        "benchmarks/experiments/structure/results/addition_weights_100-101.md",
        ADDITION.with_settings(
            {
                "gate.price": "edges=1,weights=32",
                "gate.learning_rate": 0.15,
                # Edges are a 33rd of the price: with a 33rd of lambda, one costs beside the loss what it did.
                "control.initial_lambda": 0.0303,
                "control.lambda_bounds": (0.00047, 0.0303),
                "control.final_lambda_bounds": (0.0095, 0.955),
            }
        ),
    ),
    "structure": Preset(
        "heads and neurons of a language model: over-prune under twice the ceiling, then let it settle to the end",
        "benchmarks/experiments/structure/results/language.md",
        DEFAULT_RECIPE.with_settings(
            {
                "ceiling.initial_factor": 2.0,
                "ceiling.tighten_from": 0.3,
                "ceiling.tighten_until": 0.6,
                "rate.patience": 0.0,
            }
        ),
    ),
    "language_model": Preset(
        "a language model on text, hard gates from an open start",
        "benchmarks/experiments/frontier/results/frontier-1200.md; there ceiling.initial_factor is "
        "1 + (0.09 - epsilon) / epsilon, here that of kl=0.05",
        Recipe(
            gate=GateRecipe(reads="logit", bias=6.0, anneal=0.1, pace="always", noise_until=0.0),
            ceiling=CeilingRecipe(
                initial_factor=1.8, tighten_from=0.35, tighten_until=0.85, tighten_pace="always"
            ),
            control=ControlRecipe(kp=0.5, initial_lambda=3.0, lambda_bounds=(1e-3, 30.0)),
        ),
    ),
    "pretrained": Preset(
        "a pretrained language model: gates read the attention weight, and their bias rests where the ceiling holds",
        "benchmarks/experiments/gate_reads/results/smollm2-135m.md",
        Recipe(
            gate=GateRecipe(reads="weight", bias=5.8, anneal=0.6, pace="proportional", noise_until=0.0),
            control=ControlRecipe(kp=0.5, initial_lambda=30.0, lambda_bounds=(20.0, 300.0)),
        ),
    ),
    "circuits": Preset(
        "a small language model whose component circuits are compared with those of its base",
        "benchmarks/experiments/circuits/results/circuits_x86_64_4x16x128.md",
        Recipe(
            gate=GateRecipe(reads="logit", bias=4.0),
            ceiling=CeilingRecipe(initial_factor=2.5, tighten_from=0.3, tighten_until=0.6),
            control=ControlRecipe(
                ki=0.02,
                kp=0.5,
                initial_lambda=1.0,
                lambda_bounds=(1e-3, 10.0),
                lambda_nondecreasing_from=0.85,
            ),
            logits=LogitRecipe(limit=8.0, weight=1.2e-4),
        ),
    ),
    "sentence_encoder": Preset(
        "a pretrained sentence encoder under a cosine ceiling",
        "benchmarks/experiments/sentence_encoder/results/minilm.md",
        Recipe(
            gate=GateRecipe(reads="logit", bias=3.0, anneal=0.5, pace="bidirectional", noise_until=0.0),
            control=ControlRecipe(
                ki=0.02, kp=0.5, ema_decay=0.8, initial_lambda=30.0, lambda_bounds=(1e-3, 1e4)
            ),
        ),
    ),
}
DEFAULT = PRESETS["default"].recipe


def recipe_of(given: Recipe | str | Mapping[str, Any]) -> Recipe:
    """A recipe from itself, from the name of a preset, or from a nested mapping as `Recipe.as_dict` gives it.

    Raises: `GossamerError` for an unknown name, with the nearest one.
    """
    if isinstance(given, Recipe):
        return given
    if isinstance(given, str):
        require_choice("recipe", given, PRESETS)
        return PRESETS[given].recipe
    if not isinstance(given, Mapping):
        raise refuse(f"recipe {given!r}", "a Recipe, the name of a preset, or nested settings",
                     "list them with gossamer recipes")  # fmt: skip
    parts = PARTS
    for part, values in given.items():
        if part not in parts or not isinstance(values, Mapping):
            raise refuse(f"recipe with {part!r}: {values!r}", f"{', '.join(sorted(parts))}, each a mapping",
                         "list them with gossamer recipes")  # fmt: skip
    flat = {f"{part}.{name}": value for part, values in given.items() for name, value in values.items()}
    return Recipe().with_settings(flat)
