"""From folders and prompts to a page: the models are loaded, traced and handed to the viewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..circuits.trace import trace_prompt
from ..data.prompts import Prompt, open_tokenizer, positions_of
from ..errors import refuse
from ..models.checkpoint import load_dense, load_merged
from ..training.counted import counted
from ..viz.viewer import view
from .addition.explain.findings import edge_findings_beside, read_edge_findings
from .addition.page import addition_of, view_addition


def view_folders(
    base: Path | str,
    sparse: Path,
    texts: Sequence[str] = (),
    *,
    start: str = "36+28",
    threshold: float = 0.01,
    edge_findings: Path | None = None,
) -> str:
    """The page of two checkpoints: every sum if they add, else the prompts `texts`.

    Args:
        base, sparse: a dense and a gated checkpoint.
        texts: prompts for a language model, whose tokenizer lies with either checkpoint.
        start: the sum shown first.
        threshold: smallest softmax weight that counts as an edge of a language model, in both panels.
        carries: what `gossamer verify` wrote about the sparse model; by default the file in its folder, if any.
    Raises: `GossamerError` if there is nothing to show.
    """
    dense, gated = load_dense(base), load_merged(sparse, impl="blockwise")
    if addition_of(dense.config) is not None:
        words = (
            edge_findings_beside(sparse, gated)
            if edge_findings is None
            else read_edge_findings(edge_findings, gated)
        )
        return view_addition(dense, gated, start=start, edge_findings=words)
    if edge_findings is not None:
        raise refuse("what edges carry, for a language model", "models that add", "leave out --edge-findings")
    if not texts:
        raise refuse("a language model and no prompt", "one or more", "give --prompt, once per prompt")
    tokenizer = open_tokenizer(sparse, base)
    prompts = [Prompt.of(text, tokenizer, most=positions_of(dense)) for text in texts]
    models = counted((dense, gated), "models traced")
    circuits = [  # each prompt alone, so that none is padded
        [trace_prompt(model, prompt, threshold=threshold) for prompt in counted(prompts, "prompts")]
        for model in models
    ]
    return view(*circuits)
