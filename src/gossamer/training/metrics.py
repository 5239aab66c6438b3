"""Running sums of what a run and its evaluation report; additive, so ranks and batches merge by adding.

Letters: N counted tokens, P visible units (for edges: layer, row, head, query, key), R rows (sequences).

    divergence, kl, accuracy ...    means over N; standard errors, theirs and those of density and keys_per_query,
                                    take rows, not tokens, as independent:
                                    Var(sum s / sum n) ~ sum_r (s_r - mean n_r)^2 / (sum n)^2 * R / (R - 1)
    density          hard open units / P          on the deterministic gates, each kind at its price
    expected_density sum of sigma(g) / P          what training penalises
    density_gap      the second minus the first
    open_KIND        hard open units of a kind per row (per prompt)
    density_KIND     hard open units of a kind / its visible ones, where there are several kinds
    keys_per_query   hard open units / (query rows x heads x layers that see something), of a kind that has queries
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..gates.gate_set import GateSet
from ..gates.gate_sets import GateSets
from ..gates.openness import Count
from .divergence import Items


@dataclass
class Tally:
    """Named sums; `summary` turns them into the numbers above."""

    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add_items(self, name: str, items: Items, n_rows: int) -> None:
        """Take in one value per counted token, grouped by row."""
        values = items.values.double()
        per_row = torch.zeros(n_rows, dtype=torch.float64, device=values.device).index_add_(
            0, items.rows, values
        )
        counts = torch.zeros_like(per_row).index_add_(0, items.rows, torch.ones_like(values))
        self.add_ratio(name, per_row, counts)

    def add_ratio(self, name: str, per_row: Tensor, counts: Tensor) -> None:
        """Take in sums and how much they are over, both (R,): their ratio, with rows taken as independent."""
        per_row, counts = per_row.double(), counts.double()
        parts = {
            "s": per_row.sum(),
            "n": counts.sum(),
            "ss": (per_row**2).sum(),
            "sn": (per_row * counts).sum(),
        }
        parts |= {"nn": (counts**2).sum(), "rows": (counts > 0).sum()}
        for part, value in parts.items():
            self.sums[f"{name}/{part}"] += float(value)

    def add_count(self, count: Count) -> None:
        """Take in one layer of one batch, of one kind of gate."""
        self.sums[f"{count.kind}/price"] += count.price * float(count.visible.sum())
        for part in ("visible", "expected", "hard"):
            self.sums[f"{count.kind}/{part}"] += float(getattr(count, part).sum())
            self.sums[f"priced/{part}"] += count.price * float(getattr(count, part).sum())
        if count.queries is not None:
            queries = float(count.queries.sum())
            self.sums[f"{count.kind}/queries"] += queries
            self.sums[f"queries/{count.kind}/{count.layer}"] += queries / count.hard.shape[1]
        for group, opened in enumerate(count.hard.double().sum(0).tolist()):
            self.sums[f"group/{count.kind}/{count.layer}/{group}"] += opened

    def merge(self, other: Tally) -> None:
        """Add another tally's sums to these."""
        for name, value in other.sums.items():
            self.sums[name] += value

    def mean(self, name: str) -> tuple[float, float]:
        """Mean and standard error of a named item; NaN where too little was seen."""
        s, n, ss, sn, nn, rows = (
            self.sums[f"{name}/{part}"] for part in ("s", "n", "ss", "sn", "nn", "rows")
        )
        if n == 0:
            return math.nan, math.nan
        mean = s / n
        if rows < 2:
            return mean, math.nan
        spread = max(0.0, ss - 2 * mean * sn + mean**2 * nn)
        return mean, math.sqrt(spread * rows / (rows - 1)) / n

    def items(self) -> list[str]:
        """The names given to `add_items`."""
        return sorted({name.split("/")[0] for name in self.sums if name.endswith("/nn")})

    def summary(self) -> dict[str, float]:
        """Every number of the module docstring that was measured."""
        found: dict[str, float] = {}
        for name in self.items():
            found[name], found[f"{name}_se"] = self.mean(name)
        rows = self.sums["rows"]
        if self.sums["priced/visible"]:
            hard, expected, visible = (
                self.sums[f"priced/{part}"] for part in ("hard", "expected", "visible")
            )
            found |= {"density": hard / visible, "expected_density": expected / visible}
            found["density_gap"] = (expected - hard) / visible
        for kind in self.kinds():
            found[f"open_{kind}"] = self.sums[f"{kind}/hard"] / max(1.0, rows)
            if len(self.kinds()) > 1:
                found[f"density_{kind}"] = self.sums[f"{kind}/hard"] / self.sums[f"{kind}/visible"]
            if queries := self.sums.get(f"{kind}/queries"):
                found["keys_per_query"] = self.sums[f"{kind}/hard"] / queries
        return found

    def kinds(self) -> list[str]:
        """The kinds of gates that were counted."""
        return sorted({name.split("/")[1] for name in self.sums if name.startswith("group/")})

    def per_group(self, kind: str) -> list[list[float]]:
        """Hard open units of one kind per row, [layer][group]; for edges a group is a head."""
        rows = max(1.0, self.sums["rows"])
        return [[opened / rows for opened in groups] for _, groups in self._opened(kind)]

    def keys_per_query(self, kind: str) -> list[list[float]]:
        """Hard open keys per query, [layer][group]; empty for a kind without queries."""
        if f"{kind}/queries" not in self.sums:
            return []
        return [
            [opened / max(1.0, self.sums[f"queries/{kind}/{layer}"]) for opened in groups]
            for layer, groups in self._opened(kind)
        ]

    def _opened(self, kind: str) -> list[tuple[int, list[float]]]:
        """Each layer's number with its groups' hard open units; 0 in a layer without gates, between those with."""
        table: dict[int, dict[int, float]] = defaultdict(dict)
        for name, value in self.sums.items():
            if name.startswith(f"group/{kind}/"):
                layer, group = name.split("/")[2:]
                table[int(layer)][int(group)] = value
        groups = sorted({group for row in table.values() for group in row})
        layers = range(max(table, default=-1) + 1)
        return [(layer, [table[layer].get(group, 0.0) for group in groups]) for layer in layers]


@contextmanager
def counting(gates: GateSet | GateSets, tally: Tally) -> Iterator[None]:
    """Add every layer's visible, expected and hard open units inside the `with` block to `tally`."""
    batch: dict[tuple[str, int], Count] = {}  # of one forward pass

    def add(count: Count) -> None:
        tally.add_count(count)
        if (count.kind, count.layer) in batch:  # the next forward pass has begun
            flush()
        batch[count.kind, count.layer] = count

    def flush() -> None:
        hard, visible = (
            _per_row([c.price * getattr(c, part) for c in batch.values()]) for part in ("hard", "visible")
        )
        tally.add_ratio("density", hard, visible)
        asking = [(c.hard, c.queries) for c in batch.values() if c.queries is not None]
        if asking:
            hard, queries = zip(*asking, strict=True)
            tally.add_ratio("keys_per_query", _per_row(hard), _per_row(queries))
        batch.clear()

    with gates.counting(add):
        yield
    if batch:
        flush()


def _per_row(counts: Iterable[Tensor]) -> Tensor:
    """(B,): each row's units, over all layers and groups."""
    return torch.stack([x.sum(1).cpu() for x in counts]).sum(0)
