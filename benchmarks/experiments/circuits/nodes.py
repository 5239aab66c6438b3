"""Circuits as the weight-sparse literature counts them: nodes and nonzero weights at a task loss of 0.15.

    OMP_NUM_THREADS=1 python -m benchmarks.experiments.circuits.nodes --seeds 0 1 2 --work runs/tickets

A node is a head or a neuron of an MLP. The loss of a task is -log p(right) / (p(right) + p(wrong)), the mean over
prompts. Nodes are ranked by attribution on some prompts (|gradient x (value - what replaces it)|), and the smallest
number of the best ones that brings the loss to 0.15 is looked for on others, all other nodes ablated:

    zero        0                    mean        the node's mean over clean and corrupt prompts and positions
    resample    its value on the corrupt prompt
    subsets     under each of these, 32 random subsets of the removed nodes: the worst loss, and how many exceed 0.15

Ablating everything else at once lets errors cancel, which the last row would show. Models are those of generality
(base, finetuned without a penalty, sparse), and two that must fail: labels without a rule, and random weights.
Source of target and ablation: arXiv 2511.13653; its nodes are finer (eight sites a layer) and its masks are learned, so
the numbers are comparable among these rows and not with that paper's.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import set_seed

from benchmarks.experiments.circuits.models import untrained
from benchmarks.experiments.generality import tasks
from benchmarks.experiments.generality.run import STEPS
from benchmarks.lib.record import Row, Rows
from gossamer.circuits.components.effect import sizes_around_first
from gossamer.data.pairs import Batch
from gossamer.data.registry import batches
from gossamer.files import write_text
from gossamer.models.anatomy import Anatomy
from gossamer.models.forward import first_output
from gossamer.models.quiet import quiet

TARGET, DRAWS, PROMPTS = 0.15, 32, 64
ABLATIONS = ("zero", "mean", "resample")
MODELS = {"base": "base", "finetuned": "finetuned", "sparse": f"general@{tasks.CEILINGS[0]}"}
RESULTS = Path(__file__).parent / "results"


def loss(batch: Batch, logits: Tensor) -> Tensor:
    """(N,) nats."""
    right, wrong = (
        logits.masked_fill(~mask, -torch.inf).logsumexp(-1) for mask in (batch.right, batch.wrong)
    )
    return torch.nn.functional.softplus(wrong - right)


class Nodes:
    """The heads and neurons of a model, numbered layer by layer: heads, then neurons."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.sites: list[
            tuple[torch.nn.Module, int, int, int]
        ] = []  # module, first node, nodes, features of each
        self.weights: list[int] = []
        for layer in Anatomy.of(model):
            made = (
                (layer.o, (layer.q, layer.k, layer.v, layer.o)),
                (layer.mlp.out, (layer.mlp.into, layer.mlp.out)),
            )
            for out, parts in made:
                self.sites.append((out.module, len(self.weights), out.count, out.width))
                counts = sum((part.weights() != 0).sum((1, 2)) for part in parts if part is not None)
                self.weights += counts.tolist()  # type: ignore[union-attr]

    def __len__(self) -> int:
        return len(self.weights)

    def values(self, ids: Tensor) -> list[Tensor]:
        """(B, T, nodes, features) of every site."""
        found: list[Tensor] = []
        with self._hooked(lambda site, x: found.append(x) or x), torch.no_grad():
            first_output(self.model, {"input_ids": ids})
        return found

    def run(self, ids: Tensor, kept: Tensor | None, instead: list[Tensor]) -> Tensor:
        """(B, V) logits at the last position, nodes outside of `kept`, (nodes,) bool, replaced."""

        def change(site: int, x: Tensor) -> Tensor:
            _, first, count, _ = self.sites[site]
            return x if kept is None else torch.where(kept[first : first + count, None], x, instead[site])

        with self._hooked(change):
            return first_output(self.model, {"input_ids": ids})[:, -1]

    def attribution(self, batch: Batch, instead: list[Tensor]) -> Tensor:
        """(nodes,) |sum of gradient x (value - what replaces it)| of the loss."""
        seen: list[Tensor] = []
        with self._hooked(lambda site, x: seen.append(x) or x):
            total = loss(batch, first_output(self.model, {"input_ids": batch.clean})[:, -1]).sum()
        gradients = torch.autograd.grad(total, seen)
        changes = [(x - other).detach() for x, other in zip(seen, instead, strict=True)]
        return torch.cat([(a * b).sum((0, 1, 3)).abs() for a, b in zip(changes, gradients, strict=True)])

    @contextmanager
    def _hooked(self, change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
        def hook(site: int, module: Any, given: tuple) -> tuple:
            _, _, count, width = self.sites[site]
            return (change(site, given[0].unflatten(-1, (count, width))).flatten(-2),)

        handles = [
            module.register_forward_pre_hook(partial(hook, site))
            for site, (module, *_) in enumerate(self.sites)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def instead_of(nodes: Nodes, batch: Batch, ablation: str) -> list[Tensor]:
    """What replaces each site."""
    clean, corrupt = (nodes.values(ids) for ids in (batch.clean, batch.corrupt))
    if ablation == "zero":
        return [torch.zeros_like(x[:1, :1]) for x in clean]
    if ablation == "resample":
        return corrupt
    return [torch.cat([a, b]).mean((0, 1), keepdim=True) for a, b in zip(clean, corrupt, strict=True)]


def measured(model: Any, task: str, ablation: str, seed: int) -> dict[str, Any]:
    """The smallest circuit that reaches the target, or that none does."""
    nodes = Nodes(model)
    scored, fresh = (batches(task, PROMPTS, seed=seed + offset) for offset in (5000, 6000))
    scores = sum(nodes.attribution(batch, instead_of(nodes, batch, ablation)) for batch in scored)
    order = scores.argsort(descending=True)  # type: ignore[union-attr]
    replaced = [instead_of(nodes, batch, ablation) for batch in fresh]

    def loss_of(kept: Tensor | None) -> float:
        with torch.no_grad():
            found = [loss(b, nodes.run(b.clean, kept, x)) for b, x in zip(fresh, replaced, strict=True)]
        return float(torch.cat(found).mean())

    def best(n: int) -> Tensor:
        return torch.zeros(len(nodes), dtype=torch.bool).index_fill_(0, order[:n], True)

    whole = {"of": len(nodes), "weights_of": sum(nodes.weights), "loss_of_all": loss_of(None)}
    size = sizes_around_first(lambda n: loss_of(best(n)) <= TARGET, len(nodes))[-1]
    kept = best(size)
    if (reached := loss_of(kept)) > TARGET:
        return whole | {"nodes": None, "best_loss": reached}
    drawn = [loss_of(kept | subset) for subset in _subsets(~kept, seed)]
    held = sum(n for n, here in zip(nodes.weights, kept.tolist(), strict=True) if here)
    above = sum(x > TARGET for x in drawn)
    return whole | {
        "nodes": size,
        "weights": held,
        "loss": reached,
        "worst_subset": max(drawn),
        "above": above,
    }


def _subsets(removed: Tensor, seed: int) -> Iterator[Tensor]:
    """The removed nodes that stay in each draw."""
    draw, shares = torch.Generator().manual_seed(seed), random.Random(seed)
    for _ in range(DRAWS):
        yield removed & (torch.rand(len(removed), generator=draw) < shares.random())


def model_of(name: str, work: Path, seed: int) -> Any:
    """A model of generality, or one of random weights."""
    if name == "random":
        set_seed(900 + seed)
        return untrained(tasks.settings(work, STEPS))
    return tasks.model_of(MODELS[name], work, STEPS, seed)


def as_lines(rows: list[Row]) -> list[str]:
    """The table: the geometric mean over tasks and seeds where the target was reached."""
    lines = ["| model | task | ablation | reached | nodes | nonzero weights | worst loss of subsets | subsets above |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name in dict.fromkeys(row["model"] for row in rows):
        for task in ("all four", "nonsense"):
            for ablation in ABLATIONS:
                mine = [row for row in rows if (row["model"], row["ablation"]) == (name, ablation)]
                mine = [row for row in mine if (row["task"] == "nonsense") == (task == "nonsense")]
                if mine:
                    lines.append(_line(name, task, ablation, mine))
    return lines


def _line(name: str, task: str, ablation: str, rows: list[Row]) -> str:
    reached = [row for row in rows if row["nodes"] is not None]
    cells = [name, task, ablation, f"{len(reached)} of {len(rows)}"]
    if not reached:
        best = min(row["best_loss"] for row in rows)
        return f"| {' | '.join(cells)} | never; best loss {best:.3f} | | | |"
    means = [statistics.geometric_mean(row[key] for row in reached) for key in ("nodes", "weights")]
    of = reached[0]["of"], reached[0]["weights_of"]
    sizes = [f"{mean:,.1f} of {whole:,}" for mean, whole in zip(means, of, strict=True)]
    worst, above = max(row["worst_subset"] for row in reached), sum(row["above"] for row in reached)
    return f"| {' | '.join((*cells, *sizes))} | {worst:.3f} | {above} of {DRAWS * len(reached)} |"


def main() -> None:
    """Run what is not in the record yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/tickets"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = given.results / "nodes.json"
    rows = Rows(path)
    for seed in given.seeds:
        for name in (*MODELS, "random"):
            with quiet():
                model = model_of(name, given.work / "tasks", seed)
            for task in (*tasks.TASKS, "nonsense"):
                for ablation in ABLATIONS:
                    key = {"seed": seed, "model": name, "task": task, "ablation": ablation}
                    if rows.lacks(key):
                        print(
                            key | rows.measure(key, partial(measured, model, task, ablation, seed)),
                            flush=True,
                        )
        command = f"python -m benchmarks.experiments.circuits.nodes --seeds {' '.join(map(str, given.seeds))}"
        head = [
            f"# Nodes and nonzero weights at a task loss of {TARGET}",
            "",
            f"`OMP_NUM_THREADS=1 {command}`",
            "",
        ]
        write_text(path.with_suffix(".md"), "\n".join([*head, *as_lines(rows.rows)]) + "\n")


if __name__ == "__main__":
    main()
