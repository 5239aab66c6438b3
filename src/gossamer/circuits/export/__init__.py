"""Circuits in files that other tools read; text only, never a pickle.

    json         the circuit itself, lossless, our own schema (docs/reference/files.md)        reads back
    graphml      residual streams as nodes, attention edges between them                 reads back
    csv          one line per edge, as `to_dataframe` has it
    neuronpedia  attribution graph of Neuronpedia and circuit-tracer, for one prompt

`to_networkx` and `to_dataframe` need the extra `gossamer[graphs]`; component circuits go to EAP-IG and MIB by
`gossamer.circuits.export.mib`. A graph of more than `limit` edges is refused before it is built, with its size
told.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import require_choice
from ...files import write_text
from ..circuit import Circuit
from .graphs import from_graphml, from_networkx, to_dataframe, to_graphml, to_networkx
from .neuronpedia import LINKS, as_text, to_neuronpedia
from .record import from_record, load_circuit, save_circuit, to_record

FORMATS = ("json", "graphml", "csv", "neuronpedia")
LIMIT = 500_000  # edges; assumed: about 100 MB of GraphML

__all__ = [
    "FORMATS",
    "LIMIT",
    "LINKS",
    "export",
    "from_graphml",
    "from_networkx",
    "from_record",
    "load_circuit",
    "save_circuit",
    "to_dataframe",
    "to_graphml",
    "to_networkx",
    "to_neuronpedia",
    "to_record",
]


def export(
    circuit: Circuit,
    path: Path | str,
    form: str,
    *,
    prompt: int | None = None,
    limit: int = LIMIT,
    links: int = LINKS,
) -> Path:
    """Write a circuit to a file in one of `FORMATS`; the file appears whole or not at all.

    Args:
        prompt: which one; by default all of them, and for neuronpedia, which holds one, the first.
        limit: most edges that are written.
        links: most links between nodes, for neuronpedia.
    Raises: `GossamerError` for an unknown format or prompt, a graph above the limit, a missing extra, an unwritable
    path.
    """
    require_choice("format", form, FORMATS)
    path = Path(path)
    if prompt is not None:
        circuit = circuit.of_prompt(prompt)
    if form == "json":
        save_circuit(circuit, path, limit=limit)
    elif form == "graphml":
        write_text(path, to_graphml(circuit, limit=limit))
    elif form == "csv":
        write_text(path, to_dataframe(circuit, limit=limit).to_csv(index=False, lineterminator="\r\n"))
    else:
        write_text(path, as_text(to_neuronpedia(circuit, limit=limit, links=links)))
    return path
