"""Running sums of what a run and its evaluation report; additive, so ranks and batches merge by adding.

Letters: N counted tokens, P visible (layer, row, head, query, key) pairs, R rows (sequences).

    divergence, kl, agreement ...   means over N; standard errors, theirs and those of density and keys_per_query,
                                    take rows, not tokens, as independent:
                                    Var(sum s / sum n) ~ sum_r (s_r - mean n_r)^2 / (sum n)^2 * R / (R - 1)
    density          hard open edges / P          on the deterministic gates that are kept
    expected_density sum of sigma(g) / P          what training penalises
    density_gap      the second minus the first
    open_edges       hard open edges per row (per prompt)
    keys_per_query   hard open edges / (query rows x heads x layers that see something)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..gates.edges import AttentionCall, Gates
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

    def add_edges(
        self, *, layer: int, visible: Tensor, expected: Tensor, hard: Tensor, queries: float
    ) -> None:
        """Take in one layer of one batch: (B, H) visible, expected and hard open edges, and its query rows x heads."""
        for part, value in (("visible", visible), ("expected", expected), ("hard", hard)):
            self.sums[f"edges/{part}"] += float(value.sum())
        self.sums["edges/queries"] += queries
        self.sums[f"queries/{layer}"] += queries / hard.shape[1]
        for head, opened in enumerate(hard.double().sum(0).tolist()):
            self.sums[f"head/{layer}/{head}"] += opened

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
        if self.sums["edges/visible"]:
            hard, expected, visible = (self.sums[f"edges/{part}"] for part in ("hard", "expected", "visible"))
            found |= {"density": hard / visible, "expected_density": expected / visible}
            found["density_gap"] = (expected - hard) / visible
            found |= {"open_edges": hard / rows, "keys_per_query": hard / self.sums["edges/queries"]}
        return found

    def per_head(self) -> list[list[float]]:
        """Hard open edges per row, [layer][head]."""
        rows = max(1.0, self.sums["rows"])
        return [[opened / rows for opened in heads] for _, heads in self._opened()]

    def keys_per_head(self) -> list[list[float]]:
        """Hard open keys per query, [layer][head]."""
        return [
            [opened / max(1.0, self.sums[f"queries/{layer}"]) for opened in heads]
            for layer, heads in self._opened()
        ]

    def _opened(self) -> list[tuple[int, list[float]]]:
        """Each layer's number with its heads' hard open edges."""
        table: dict[int, dict[int, float]] = defaultdict(dict)
        for name, value in self.sums.items():
            if name.startswith("head/"):
                _, layer, head = name.split("/")
                table[int(layer)][int(head)] = value
        return [(layer, [table[layer][head] for head in sorted(table[layer])]) for layer in sorted(table)]


@contextmanager
def counting(gates: Gates, tally: Tally) -> Iterator[None]:
    """Add every layer's visible, expected and hard open edges inside the `with` block to `tally`."""
    batch: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # layer -> each row's hard, visible, queries

    def note(call: AttentionCall) -> None:
        hard, queries = call.open_gates(call.logits(), gates.bias).sum(dim=(-1, -2)), call.visible_queries
        tally.add_edges(
            layer=call.layer,
            visible=call.visible,
            expected=call.expected_open,
            hard=hard,
            queries=float(queries.sum()),
        )
        if call.layer in batch:  # the next forward pass has begun
            flush()
        batch[call.layer] = (hard.sum(1).cpu(), call.visible.sum(1).cpu(), queries.sum(1).cpu())

    def flush() -> None:
        hard, visible, queries = (torch.stack(x).sum(0) for x in zip(*batch.values(), strict=True))
        tally.add_ratio("density", hard, visible)
        tally.add_ratio("keys_per_query", hard, queries)
        batch.clear()

    with gates.observing(note):
        yield
    if batch:
        flush()
