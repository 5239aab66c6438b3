"""What each edge of an adding model carries, in words for the page: written by `gossamer verify`, read by `view`.

    verify -> edge_findings.json beside the weights -> view, report.html

Finding it out takes minutes, so no page does it; and words about other weights would be false, so the file
holds a fingerprint of the weights that it is about and is left aside, with a warning, where they differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ....errors import GossamerWarning, refuse
from ....files import read_json, write_json
from ....models.attach import gates_of
from ....models.fingerprint import fingerprint

FILE = "edge_findings.json"
SCHEMA = 1
Edge = tuple[int, int, int, int]  # layer, head, query, key


def named_weights(model: PreTrainedModel) -> str:
    """The name of a gated model: that of its weights, and its gate bias."""
    return f"{fingerprint(model)}, bias {float(gates_of(model).bias)!r}"


def write_edge_findings(folder: Path, explanation: Mapping[str, Any], weights: str) -> Path:
    """Write what `Explanation.as_record` found beside the weights that it is about; returns the file."""
    path = folder / FILE
    parts = {name: explanation[name] for name in ("edges", "head_outputs")}
    write_json(path, {"schema": SCHEMA, "weights": weights, "n": explanation["program"]["n"], **parts})
    return path


def read_edge_findings(path: Path, model: PreTrainedModel) -> dict[Edge, str]:
    """The words of every edge from a file that `verify` wrote, nothing with a warning if it is of other weights.

    Args:
        path: edge_findings.json, or the whole record that `gossamer verify --out` writes.
    Raises: `GossamerError` for another kind of file.
    """
    found = read_json(path)
    found = {**found, **found["explanation"]} if "explanation" in found else found
    if not {"weights", "edges", "head_outputs"} <= found.keys():
        raise refuse(
            f"{path} does not say what edges carry",
            "what gossamer verify writes",
            "run gossamer verify again",
        )
    if found["weights"] != named_weights(model):
        words = f"{path} is about other weights and is left aside; run gossamer verify again"
        warnings.warn(words, GossamerWarning, stacklevel=2)
        return {}
    return in_words(found)


def edge_findings_beside(folder: Path, model: PreTrainedModel) -> dict[Edge, str]:
    """The same from the file in a checkpoint's folder; nothing where `verify` never ran."""
    path = folder / FILE
    return read_edge_findings(path, model) if path.is_file() else {}


def in_words(explanation: Mapping[str, Any]) -> dict[Edge, str]:
    """One phrase per edge: when its gate opens, what it carries alone, and what its whole head hands over.

    A claim that did not hold on the share of sums that was asked for is not made.
    """
    whole = {tuple(head_output["head_output"]): head_output for head_output in explanation["head_outputs"]}
    found = {}
    for edge in explanation["edges"]:
        layer, head, query, key = edge["edge"]
        parts = [edge["when"]] if len(edge["gate"]["digits"]) < 3 else [_briefly(edge)]
        if edge["certain"]:
            parts.append(f"alone it carries {edge['carries']}")
        head_output = whole.get((layer, head, query))
        if head_output and head_output["certain"]:
            also = "" if head_output["reads"] == [key] else ", with what else it reads,"
            parts.append(f"the head{also} hands over {head_output['hands']}")
        found[layer, head, query, key] = "; ".join(parts)
    return found


def _briefly(edge: Mapping[str, Any]) -> str:
    """When a gate opens that depends on many digits, whose names would fill the page."""
    when, digits = edge["when"].partition(", ")[0], len(edge["gate"]["digits"])
    return f"{when}, by {digits} digits together"
