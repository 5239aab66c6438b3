"""The two models behind the app, and one question: a prompt, and what is cut out of each model.

    prompt -> tokens -> circuit and next-token distribution of base and sparse, with cut edges kept closed

The base runs with all gates open for good, which repeats it exactly, so that its edges can be cut like those of the
sparse model.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...circuits.trace import trace_prompt, units_left
from ...data.prompts import Prompt, open_tokenizer, pieces, positions_of
from ...errors import refuse
from ...models.attach import attach, gates_of
from ...models.checkpoint import load_dense, load_merged
from ...models.forward import device_of, evaluating, first_output
from ..viewer import page_data, panel_data
from ..viewer.pack import circuits

TITLES = ("Base Model", "Sparse Model")
NAMES = ("base", "sparse")


Cut = tuple[int, ...]  # (layer, head, query, key), or (layer, head) for all edges of a head


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may ask for.

    Attributes:
        tokens: of a prompt.
        characters: of a prompt, checked before it is tokenised.
        waiting: requests that may run or wait at one time; the rest are turned away.
        cuts: edges and heads that one request may cut, of both models together.
        seconds: that one request may take; looked at in every layer.
        edges: per panel that are sent; of more, those that reach the answer and then the heaviest.
        threshold: smallest softmax weight that counts as an edge, of either model.
        shown: tokens of the next-token distribution.
    """

    tokens: int = 512
    characters: int = 8000
    waiting: int = 4
    cuts: int = 10_000
    seconds: float = 60.0
    edges: int = 60_000
    threshold: float = 0.01
    shown: int = 10


class Session:
    """Both models, ready to be asked.

    Args:
        base, sparse: a dense and a gated model; the base is given open gates.
        tokenizer: of both.
        limits: see `Limits`.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        sparse: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        limits: Limits | None = None,
    ) -> None:
        gates_of(sparse)
        attach(base, bias=math.inf)
        self.models, self.tokenizer, self.limits = (base.eval(), sparse.eval()), tokenizer, limits or Limits()
        self.turns = tuple(threading.Lock() for _ in self.models)  # a model's gates are shared state
        self.most_tokens = min(self.limits.tokens, positions_of(base) or self.limits.tokens)

    @classmethod
    def load(
        cls, folder: Path, limits: Limits | None = None, models: tuple[Path | str, Path] | None = None
    ) -> Session:
        """The models in folder/base and folder/sparse, or `models`, and the tokenizer that lies with one of them."""
        base, sparse = models or (folder / "base", folder / "sparse")
        opened = load_dense(base), load_merged(sparse)
        return cls(*opened, open_tokenizer(sparse, base, folder), limits)

    def answer(
        self,
        prompt: str,
        cuts: Sequence[Sequence[Cut]] = ((), ()),
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Both circuits, packed for the page, and both next-token distributions.

        Requests take turns model by model; what needs no model is done outside of turns.

        Args:
            prompt: text of at most `limits.tokens` tokens.
            cuts: per model, the edges and heads that are kept closed.
            check: called in every layer and between the steps; raises to stop.
        Raises: `GossamerError` for a prompt or a cut that cannot be.
        """
        if (n := sum(map(len, cuts))) > self.limits.cuts:
            raise refuse(f"{n:,} cuts", f"at most {self.limits.cuts:,}", "cut whole heads")
        read = self.read(prompt)
        found = [self._one(i, read, cuts[i], check) for i in range(len(self.models))]
        return {"panels": [panel for panel, _ in found], "next": [rows for _, rows in found]}

    def read(self, text: str) -> Prompt:
        """A text as a prompt within the limits."""
        limits = self.limits
        if len(text) > limits.characters:
            expected = f"at most {limits.characters:,}"
            raise refuse(f"a prompt of {len(text):,} characters", expected, "shorten it")
        return Prompt.of(text, self.tokenizer, most=self.most_tokens)

    def _one(
        self, number: int, prompt: Prompt, cut: Sequence[Cut], check: Callable[[], None]
    ) -> tuple[dict[str, Any], list[tuple[str, float]]]:
        model, last = self.models[number], len(prompt) - 1
        gates = gates_of(model)
        keep = closed(cut, gates.n_layers, gates.n_heads, len(prompt))
        keep = None if keep is None else {layer: kept.to(device_of(model)) for layer, kept in keep.items()}
        with self.turns[number]:
            check()
            with gates.using(keep=keep), gates.observing(lambda _: check()), evaluating(model):
                circuit = trace_prompt(model, prompt, threshold=self.limits.threshold)
                logits = first_output(model, {"input_ids": prompt.ids.to(device_of(model))})[0, last].float()
        check()
        return circuits([circuit], most=self.limits.edges), self._likeliest(logits)

    def _likeliest(self, logits: Tensor) -> list[tuple[str, float]]:
        if not torch.isfinite(logits).all():
            raise refuse("the model's logits are not finite", "a whole model", "load another one")
        top = logits.softmax(-1).topk(min(self.limits.shown, len(logits)))
        words = pieces(self.tokenizer, top.indices.tolist())
        return list(zip(words, top.values.tolist(), strict=True))

    def page_data(self, start: str = "") -> dict[str, Any]:
        """What the page knows before the first prompt."""
        panels = [
            panel_data(
                name,
                title,
                (gates_of(m).n_layers, gates_of(m).n_heads),
                units_left(m),
                least=self.limits.threshold,
            )
            for name, title, m in zip(NAMES, TITLES, self.models, strict=True)
        ]
        limits = {"tokens": self.most_tokens, "characters": self.limits.characters}
        return page_data("server", panels, start=start, limits=limits)


def closed(cuts: Sequence[Cut], n_layers: int, n_heads: int, length: int) -> dict[int, Tensor] | None:
    """What is cut as `EdgeGates.keep`: per layer, (1, H, T, T) ones with zeros where it is."""
    keep: dict[int, Tensor] = {}
    sizes = (n_layers, n_heads, length, length)
    for cut in cuts:
        if not all(0 <= x < size for x, size in zip(cut, sizes, strict=False)):
            expected = f"one of {n_layers} layers, {n_heads} heads, {length} tokens"
            raise refuse(f"edge {','.join(map(str, cut))}", expected, "cut an edge that is drawn")
        layer, *place = cut
        keep.setdefault(layer, torch.ones(1, n_heads, length, length))[(0, *place)] = 0
    return keep or None
