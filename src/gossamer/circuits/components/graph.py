"""The component graph of a pre-norm transformer: who may write into whom through the residual stream.

    nodes   input, a{L}.h{H}, m{L}, logits
    edges   from every earlier writer into each head's q, k and v, into each MLP, and into the logits

With n layers of h heads, one after another (a block's MLP reads its own heads), there are

    E = sum_{l<n} [ 3h (1 + (h+1) l) + 1 + (h+1) l + h ] + 1 + (h+1) n

edges: 32,491 for GPT-2 small, with 158 nodes. In parallel blocks (GPT-NeoX) the term + h is absent.
Source: EAP-IG and MIB, whose names are used; numbers of writers and readers run in the order of computation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...errors import refuse

SLOTS = ("q", "k", "v")


@dataclass(frozen=True)
class ComponentGraph:
    """Writers (rows) and readers (columns) of a model with `n_layers` blocks of `n_heads` heads.

    Writer 0 is the input; head h of layer l is 1 + l (n_heads + 1) + h, its MLP the one after the last head.
    Reader l (3 n_heads + 1) + s n_heads + h is slot s of head h, then comes the MLP; the last reader is the
    logits.
    """

    n_layers: int
    n_heads: int
    parallel: bool = False

    @property
    def n_writers(self) -> int:
        """Input, heads and MLPs."""
        return 1 + self.n_layers * (self.n_heads + 1)

    @property
    def n_readers(self) -> int:
        """q, k and v of every head, MLPs and logits."""
        return self.n_layers * (3 * self.n_heads + 1) + 1

    @property
    def n_nodes(self) -> int:
        """Writers and the logits: 158 for GPT-2 small."""
        return self.n_writers + 1

    @property
    def n_edges(self) -> int:
        """The formula of the module docstring."""
        h, total = self.n_heads, 0
        for layer in range(self.n_layers):
            before = 1 + (h + 1) * layer
            total += 3 * h * before + before + (0 if self.parallel else h)
        return total + self.n_writers

    def head(self, layer: int, head: int) -> int:
        """The writer number of a head."""
        return 1 + layer * (self.n_heads + 1) + head

    @cached_property
    def head_writers(self) -> Tensor:
        """(layers, heads) int64: the writers that are heads."""
        return torch.arange(1, self.n_writers).view(self.n_layers, self.n_heads + 1)[:, :-1]

    def mlp(self, layer: int) -> int:
        """The writer number of an MLP."""
        return self.head(layer, self.n_heads)

    def into_attention(self, layer: int) -> slice:
        """The readers of a layer's attention: q, then k, then v, each by head."""
        start = layer * (3 * self.n_heads + 1)
        return slice(start, start + 3 * self.n_heads)

    def into_slot(self, layer: int, slot: int) -> slice:
        """The readers of a layer's q, k or v (slot 0, 1 or 2), by head."""
        start = self.into_attention(layer).start + slot * self.n_heads
        return slice(start, start + self.n_heads)

    def into_mlp(self, layer: int) -> int:
        """The reader number of an MLP."""
        return self.into_attention(layer).stop

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """Names by writer number."""
        blocks = [
            [*(f"a{layer}.h{head}" for head in range(self.n_heads)), f"m{layer}"]
            for layer in range(self.n_layers)
        ]
        return ("input", *(name for block in blocks for name in block))

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """Names by reader number; slots as in `a0.h1<q>`."""
        found = []
        for layer in range(self.n_layers):
            found += [f"a{layer}.h{head}<{slot}>" for slot in SLOTS for head in range(self.n_heads)]
            found.append(f"m{layer}")
        return (*found, "logits")

    @cached_property
    def exists(self) -> Tensor:
        """(writers, readers) bool: which edges there are."""
        table = torch.zeros(self.n_writers, self.n_readers, dtype=torch.bool)
        for layer in range(self.n_layers):
            table[: self.head(layer, 0), self.into_attention(layer)] = True
            table[: self.head(layer, 0) if self.parallel else self.mlp(layer), self.into_mlp(layer)] = True
        table[:, -1] = True
        return table

    @cached_property
    def reader_of(self) -> Tensor:
        """(readers,) the writer that a reader belongs to; the logits are n_writers."""
        found = []
        for layer in range(self.n_layers):
            found += [self.head(layer, head) for _ in SLOTS for head in range(self.n_heads)] + [
                self.mlp(layer)
            ]
        return torch.tensor([*found, self.n_writers])

    def edge_names(self, edge_mask: Tensor | None = None) -> list[str]:
        """`SRC->DST` of every edge, or of those in a (writers, readers) mask."""
        rows, columns = (self.exists if edge_mask is None else edge_mask & self.exists).nonzero(as_tuple=True)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [f"{self.writers[w]}->{self.readers[r]}" for w, r in pairs]

    def edge(self, name: str) -> tuple[int, int]:
        """(writer, reader) of `SRC->DST`; an edge that the model does not have is an error."""
        source, _, target = name.partition("->")
        if source not in self.writers or target not in self.readers:
            raise refuse(f"edge {name!r}", "names such as input->a0.h0<q>, a0.h1->m0, m1->logits", "check it")
        writer, reader = self.writers.index(source), self.readers.index(target)
        if not self.exists[writer, reader]:
            raise refuse(f"edge {name!r}", "from an earlier writer into a later reader", "check its order")
        return writer, reader

    def require_mask(self, edge_mask: Tensor) -> None:
        """Raise unless `edge_mask` is a (writers, readers) mask of edges that exist."""
        if tuple(edge_mask.shape) != tuple(self.exists.shape):
            shape = tuple(self.exists.shape)
            raise refuse(
                f"edges {tuple(edge_mask.shape)}",
                f"{shape}, writers x readers",
                "build it for this model",
            )
        if bool((edge_mask.cpu() & ~self.exists).any()):
            names = (edge_mask.cpu() & ~self.exists).nonzero()[0].tolist()
            raise refuse(
                f"edge {self.writers[names[0]]}->{self.readers[names[1]]}, which this model does not have",
                f"the {self.n_edges:,} edges of its graph",
                "drop it",
            )

    def prune(self, edge_mask: Tensor) -> Tensor:
        """`edge_mask` without dead ends: only edges on a path from the input to the logits."""
        forward = torch.zeros(self.n_writers + 1, dtype=torch.bool)
        forward[0] = True
        for reader in range(self.n_readers):
            node = self.reader_of[reader]
            forward[node] |= bool((edge_mask[:, reader] & forward[: self.n_writers]).any())
        backward = torch.zeros(self.n_writers + 1, dtype=torch.bool)
        backward[-1] = True
        for writer in reversed(range(self.n_writers)):
            backward[writer] = bool((edge_mask[writer] & backward[self.reader_of]).any())
        return edge_mask & forward[: self.n_writers, None] & backward[self.reader_of][None]
