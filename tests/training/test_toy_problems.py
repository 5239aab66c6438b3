"""The controller on ten small problems whose sparsest feasible answer is known, with real gates and no Trainer.

Each has n gates with learned logits, weights w, a divergence D(z, w) and a ceiling. As in a run, gates are drawn while
training, models are judged on hard gates, and the sparsest that held the ceiling is what a run gives back; the one with
every gate open is the first of them. `pytest -s` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gossamer.gates.gate import hard_gate
from gossamer.training.constraint import Ceiling
from gossamer.training.controller import Controller
from gossamer.training.recipe import ControlRecipe, GateRecipe, RateRecipe, Recipe

pytestmark = pytest.mark.integration  # whole runs

EPSILON = 0.1
STEPS, EVERY, ROWS = 1500, 25, 16  # rows: draws of the gates in one step, as a batch has


@dataclass(frozen=True)
class Toy:
    """A problem of n gates: D of (draws of) z (rows, n) and w (n,), and how many gates its optimum leaves open."""

    n: int
    divergence: Callable[[Tensor, Tensor], Tensor]
    optimum: int


def graded(z: Tensor, w: Tensor) -> Tensor:
    """Eight quadratics, each twice as dear as the one before: the cheapest may go until EPSILON is spent."""
    return ((1 - z * w) ** 2 * 2.0 ** torch.arange(-7, 1)).sum(-1)


def equal(z: Tensor, w: Tensor) -> Tensor:
    """Ten that cost 0.03 each: any three may go."""
    return 0.03 * ((1 - z * w) ** 2).sum(-1)


def redundant(z: Tensor, w: Tensor) -> Tensor:
    """Routes to the same sum; one is enough."""
    return (1 - (z * w).sum(-1)) ** 2


def two_groups(z: Tensor, w: Tensor) -> Tensor:
    """Two sums, of four routes each."""
    sums = (z * w).unflatten(-1, (2, 4)).sum(-1)
    return ((1 - sums) ** 2).sum(-1)


def pair(z: Tensor, w: Tensor) -> Tensor:
    """A product of two pays, neither alone; six more do nothing."""
    return (1 - z[:, 0] * z[:, 1] * w[0] * w[1]) ** 2


def pair_or_three(z: Tensor, w: Tensor) -> Tensor:
    """A product of two, or a sum of three thirds: the pair is sparser and has no slope alone."""
    joint = z[:, 0] * z[:, 1]
    thirds = z[:, 2:].sum(-1) / 3
    return (1 - torch.maximum(joint, thirds)) ** 2 + 0 * w.sum()


def chain(z: Tensor, w: Tensor) -> Tensor:
    """Four in series, all of them needed."""
    return (1 - (z * w).prod(-1)) ** 2


def nothing(z: Tensor, w: Tensor) -> Tensor:
    """No gate is needed."""
    return 0.0 * (z * w).sum(-1)


def majority(z: Tensor, w: Tensor) -> Tensor:
    """A cliff: three of seven suffice, two do not."""
    return (3 - z.sum(-1)).clamp_min(0) + 0 * w.sum()


def late(z: Tensor, w: Tensor) -> Tensor:
    """One gate carries all, seven others each repair 1/22: those may go together up to EPSILON."""
    return 2 * (1 - z[:, 0] * w[0]) ** 2 + ((1 - z[:, 1:] * w[1:]) ** 2).sum(-1) / 22


TOYS = {
    "graded": Toy(8, graded, 5),  # 1/128 + 1/64 + 1/32 = 0.055 may go, 1/16 more may not
    "equal": Toy(10, equal, 7),
    "redundant": Toy(8, redundant, 1),
    "two groups": Toy(8, two_groups, 2),
    "pair": Toy(8, pair, 2),
    "pair or three": Toy(5, pair_or_three, 2),
    "chain": Toy(4, chain, 4),
    "nothing": Toy(6, nothing, 0),
    "majority": Toy(7, majority, 3),
    "late": Toy(8, late, 6),  # two of the seven cost 0.09
}
RECIPE = Recipe(
    gate=GateRecipe(bias=4.0, anneal=0.2),
    control=ControlRecipe(ki=0.05, kp=0.5, initial_lambda=10.0, lambda_bounds=(0.1, 1e3)),
    rate=RateRecipe(settle=0.3),
)


def solve(toy: Toy, seed: int = 0) -> tuple[int, float]:
    """The sparsest model that held the ceiling: (open gates, D)."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.zeros(toy.n, requires_grad=True)
    w = torch.ones(toy.n) + 0.1 * torch.randn(toy.n, generator=draw)
    w.requires_grad_(True)
    made = Controller(Ceiling("kl", EPSILON), RECIPE)
    made.begin(STEPS)
    optimizer = torch.optim.Adam([logits, w], lr=0.03, betas=(0.9, 0.99))
    best = (toy.n, 0.0)
    for step in range(STEPS):
        noise = torch.rand(ROWS, toy.n, generator=draw).clamp(1e-6, 1 - 1e-6) if made.sampling else None
        z, p = hard_gate((logits + made.bias).expand(ROWS, -1), noise)
        divergence = toy.divergence(z, w).mean()
        optimizer.param_groups[0]["lr"] = 0.03 * made.rate
        optimizer.zero_grad()
        made.lagrangian(p.mean(), divergence).backward()
        optimizer.step()
        made.step(float(divergence.detach()))
        if step % EVERY == 0 or step == STEPS - 1:
            with torch.no_grad():
                hard = ((logits + made.bias) > 0).float()[None]
                lost, left = float(toy.divergence(hard, w)), int(hard.sum())
            if lost <= EPSILON and left < best[0]:
                best = (left, lost)
    return best


@pytest.fixture(scope="module")
def solved() -> dict[str, tuple[int, float]]:
    return {name: solve(toy) for name, toy in TOYS.items()}


def test_every_problem_ends_inside_its_ceiling_and_eight_at_their_optimum(
    solved: dict[str, tuple[int, float]],
) -> None:
    for name, (left, lost) in solved.items():
        print(f"{name:14} {left} of {TOYS[name].n} open, optimum {TOYS[name].optimum}, D {lost:.4f}")  # noqa: T201
    assert all(lost <= EPSILON for _, lost in solved.values())
    assert all(left >= TOYS[name].optimum for name, (left, _) in solved.items())  # the optimum is one
    assert sum(left == TOYS[name].optimum for name, (left, _) in solved.items()) >= 8
