"""What a run leaves as report.json: one typed schema for `gossamer demo` and `gossamer sparsify`, with a reader.

Schema 2 is `RunReport`, field by field. Reports of 0.1.0 are read too: the demo's (schema 1, its outcome under
`run`) and that of `sparsify` (no schema number, its open edges in two flat lists).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import CheckpointError, refuse
from ..files import read_json, write_json

SCHEMA_VERSION = 2
FILE = "report.json"
SHOWN = 8  # names of labels in a sentence
GAP = ("gap", "gap_se")  # what 0.1.0 called delta_ce


@dataclass(frozen=True)
class OpenUnits:
    """What is left of one kind of gate.

    Attributes:
        per_group: hard open units per held-out row, [layer][group]; for edges a group is a head.
        keys_per_query: hard open keys per query, [layer][head], for edges; empty for other kinds.
        of_layer: how many units each layer has, for kinds whose units do not depend on the input; else empty.
    """

    per_group: list[list[float]]
    keys_per_query: list[list[float]] = field(default_factory=list)
    of_layer: list[int] = field(default_factory=list)

    @property
    def per_layer(self) -> list[float]:
        """Hard open units per held-out row, of each layer."""
        return [sum(groups) for groups in self.per_group]


@dataclass(frozen=True)
class RunReport:
    """What was asked of a run, which model was kept, and what it loses.

    Attributes:
        recipe: "addition" for `gossamer demo`, "text" for `gossamer sparsify`.
        model, data: what the run was given, a hub id or a path; `local` lists those that are paths.
        settings: the whole run, as its config.yaml holds it.
        feasible: whether the best checkpoint holds the ceiling on held-out data; None where it is not on record.
        missed: by how much it does not, in words; empty where it does.
        ended: why the run ended, in words; empty where the report is older than that.
        held_out: numbers of the best checkpoint on rows that nothing was chosen by, with standard errors as NAME_se.
        chosen_on: the same on the rows that the best checkpoint was chosen by.
        gates: what is left of each kind of gate.
        sizes: parameters, multiply_adds (a token, of linear layers) and bytes -> their values of `base` and `left`
            (`models/remaining.py`); empty where adapters hide the matrices.
        neurons: of a run on addition with gates on neurons, one record for each neuron that is left.
        tries: of a run on addition that had several, the one that was kept first: seed, feasible, missed, seconds and
            numbers on the rows that chose its best checkpoint, and what a look at its beginning saw; of those that
            ended there, seed and look.
        starts: what the untrained model could begin with, by what gates could read: bias (None for
            open gates), density, divergence and multiplier, that which was taken first.
        task: of a run on data, what the model is for (`training/tasks.py`): name, why, and of labelled tasks labels and
            whether the data had some; of a run on addition what was added.
        proof, edges, figures: of a run on addition, where every prompt is verified.
    """

    recipe: str = "text"
    model: str = ""
    data: str = ""
    local: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    ceiling: str = ""
    feasible: bool | None = None
    missed: str = ""
    best_step: int | None = None
    steps: int | None = None
    ended: str = ""
    held_out: dict[str, float] = field(default_factory=dict)
    held_out_rows: int | None = None
    chosen_on: dict[str, float] = field(default_factory=dict)
    gates: dict[str, OpenUnits] = field(default_factory=dict)
    sizes: dict[str, dict[str, float]] = field(default_factory=dict)
    neurons: list[dict[str, Any]] = field(default_factory=list)
    tries: list[dict[str, Any]] = field(default_factory=list)
    starts: dict[str, dict[str, float | None]] = field(default_factory=dict)
    impl: str = ""
    versions: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    proof: dict[str, Any] = field(default_factory=dict)
    edges: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    controls: dict[str, float] = field(default_factory=dict)

    @property
    def task_in_words(self) -> str:
        """The task of a run on data, with what it was taken from; empty where the report does not say."""
        if "why" not in self.task:
            return ""
        said = f"Task: {self.task['name'] or 'as the head says'} (from {self.task['why']})"
        names = self.task.get("labels", [])
        if names:
            shown = ", ".join([*names[:SHOWN], *["..."] * (len(names) > SHOWN)])
            has = "the data have labels" if self.task.get("labelled") else "no labels in the data"
            said += f", {len(names)} labels: {shown}; {has}"
        return f"{said}."

    @property
    def why_reads(self) -> str:
        """In words, why gates read what they do; empty where nothing was measured or there was no choice."""
        if len(self.starts) < 2:
            return ""
        shares = [
            f"{100 * (start['density'] or 0):.1f} % by the {name}" for name, start in self.starts.items()
        ]
        left = f"the untrained model starts with {', '.join(shares)} of its units open"
        return f"gates read the {next(iter(self.starts))}: {left}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as report.json holds them."""
        return {"schema": SCHEMA_VERSION, **asdict(self)}

    def write(self, folder: Path) -> None:
        """Write report.json into the folder of a run."""
        write_json(folder / FILE, self.as_dict())

    @classmethod
    def of(cls, record: Mapping[str, Any], where: Path | str = FILE) -> RunReport:
        """The report that a record of any schema holds.

        Raises: `CheckpointError` for a newer schema, and for what is no report.
        """
        if not isinstance(record, Mapping):
            raise _no_report(where, "no JSON object")
        schema = record.get("schema", 1)
        if not isinstance(schema, int) or schema > SCHEMA_VERSION:
            raise _no_report(where, f"schema {schema!r}")
        values = dict(record) if schema == SCHEMA_VERSION else _upgraded(record)
        values.pop("schema", None)
        names = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(values) - names):
            raise _no_report(where, f"unknown entries {', '.join(unknown)}")
        try:
            gates = {kind: OpenUnits(**units) for kind, units in values.get("gates", {}).items()}
        except (TypeError, AttributeError) as error:
            raise _no_report(where, "entries of another shape under gates") from error
        return cls(**{**values, "gates": gates})

    @classmethod
    def load(cls, folder: Path | str) -> RunReport:
        """The report in the folder of a run.

        Raises: `CheckpointError` where there is none, or none that can be read.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise refuse(
                f"{folder} has no {FILE}",
                "the folder of a finished gossamer demo or gossamer sparsify",
                "finish the run with --resume",
                CheckpointError,
            )
        return cls.of(read_json(path), path)


def report_beside(folder: Path) -> RunReport | None:
    """The report of the run that made the model in `folder`; None where there is none."""
    place = next((x for x in (folder, folder.resolve().parent) if (x / FILE).is_file()), None)
    return None if place is None else RunReport.load(place)


def describe_sizes(sizes: dict[str, dict[str, float]]) -> list[tuple[str, str, str]]:
    """(what, base, left) in words, of `RunReport.sizes`; empty where nothing was counted."""
    words = {
        "parameters": "parameters",
        "multiply_adds": "multiply-adds a token, linear layers",
        "bytes": "bytes, stored dense",
    }
    return [
        (words[name], f"{size['base']:,.0f}", f"{size['left']:,.0f} ({size['left'] / size['base']:.1%})")
        for name, size in sizes.items()
    ]


def _no_report(where: Path | str, found: str) -> CheckpointError:
    error = refuse(
        f"{where} holds {found}",
        f"a report of schema 1 to {SCHEMA_VERSION}",
        "update gossamer, or make the run again",
        CheckpointError,
    )
    assert isinstance(error, CheckpointError)
    return error


def _upgraded(record: Mapping[str, Any]) -> dict[str, Any]:
    """A report of 0.1.0 in the names of today."""
    values = dict(record)
    run = values.pop("run", None) or {}
    if run or "task" in values or "proof" in values:
        settings = values.get("settings", {})
        kept = ("feasible", "missed", "kept_step", "steps", "chosen_on")
        values |= {"recipe": "addition", "model": "base", "data": "addition"}
        values |= {name: run[name] for name in kept if run.get(name) is not None}
        if settings.get("ceiling"):
            values["ceiling"] = settings["ceiling"]
    values.pop("open_edges_per_layer", None)
    heads, keys = values.pop("open_edges_per_head", None), values.pop("keys_per_query_per_head", [])
    if heads is not None:
        values["gates"] = {"edges": {"per_group": heads, "keys_per_query": keys}}
    values["best_step"] = values.pop("kept_step", values.get("best_step"))
    values["ceiling"] = values.get("ceiling", "").replace("gap=", "delta_ce=")
    for name in ("held_out", "chosen_on"):
        values[name] = {
            n.replace("gap", "delta_ce") if n in GAP else n: x for n, x in values.get(name, {}).items()
        }
    return values


def versions() -> dict[str, Any]:
    """What a run's numbers depend on besides its settings."""
    import torch  # here, since reading a report needs none

    return {
        "gossamer": __version__,
        **{name: version(name) for name in ("torch", "transformers")},
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
