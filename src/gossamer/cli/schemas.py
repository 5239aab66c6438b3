"""What every verb prints with `--json`, as types; `gossamer schema VERB` prints them as JSON Schema.

Objects that are closed here have no other keys. Where a key may be missing, or its value null, the type says so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, WithJsonSchema

from ..circuits.export.record import Record as CircuitRecord
from ..models.run_report import SCHEMA_VERSION, RunReport
from ..recipes.shrink import Shrunk


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OfModels(Closed):
    """One count of the base and of the sparse model; null where 90 % of the effect is not reached."""

    base: int | None
    sparse: int | None
    of: int | None


class Comparison(Closed):
    """What two models need for 90 % of their effect on a task: `gossamer compare`."""

    task: str
    ablation: str
    n: int
    effects: list[float]
    gradient: str
    heads: OfModels
    heads_ratio: float | None
    edges: OfModels
    edges_ratio: float | None
    attention_edges: OfModels
    attention_edges_ratio: float | None
    attention_edges_refused: str = ""


class Also(Closed):
    """The divergence of a model from its base on other texts: `gossamer compare --also DATA`.

    `held` is what the model's run reported on its own held-out rows; null where no report is beside the model.
    """

    ceiling: str | None
    held: dict[str, float] | None
    also: list[dict[str, Any]]


class ComparisonAlso(Comparison, Also):
    """Both, where `--task` and `--also` are given."""


class Share(Closed):
    """How often a claim holds, with its 95 % interval (Wilson)."""

    hits: int
    n: int
    interval: list[float]


class TaskProof(Closed):
    """A circuit proved on prompts: `gossamer verify --task`, or `--prompt`, where nobody says what is right."""

    task: str
    base_right: Share | None
    sparse_right: Share | None
    same_answer: Share
    edges_a_prompt: dict[str, float]
    sufficient: dict[str, Share]
    live_alone: Share
    necessary: Share
    redundant: int
    leaks: Share
    stable: dict[str, dict[str, Any]]
    others: dict[str, dict[str, Any]]
    subsets: list[dict[str, Any]]
    paraphrases: dict[str, Any] | None
    all_claims_hold: bool


class AdditionProof(Closed):
    """A circuit proved on every sum, with what each edge carries: `gossamer verify`."""

    verification: dict[str, Any]
    proof: dict[str, Any]
    precision: float
    recall: float
    sums: int
    others: dict[str, Any] | None
    weights: str
    explanation: dict[str, Any]


class GatesOn(Closed):
    """One kind of gate on a model: its bias in nats, "open" if all are open, and what they read."""

    bias: float | Literal["open"]
    reads: str | None


class ModelInfo(Closed):
    """One model, without loading its weights."""

    path: str
    architecture: str
    family: str
    adapter_of: str | None
    layers: int
    heads: int
    key_value_heads: int
    parameters: int
    edges: bool
    gates: dict[str, GatesOn]
    ceiling: str | None
    feasible: bool | None
    open: dict[str, list[float]]
    of: dict[str, list[int]]
    sizes: dict[str, dict[str, float]]
    why_reads: str
    task: str


class Info(Closed):
    """What a model or the models of a run are: `gossamer info`."""

    models: list[ModelInfo]
    impl: dict[str, dict[str, str]]
    versions: dict[str, str]


class Preset(Closed):
    """One recipe of `gossamer recipes`: what it is for, the record behind it, and what it changes."""

    purpose: str
    record: str
    changes: dict[str, Any]


class Settings(Closed):
    """Every setting of one recipe: `gossamer recipes NAME`."""

    name: str
    settings: dict[str, Any]


class Written(Closed):
    """A file that was written: `gossamer export`, `gossamer view`."""

    path: str
    bytes: int


class Served(Closed):
    """Where a server listens; one line, as soon as it does: `gossamer serve`. The address holds the token, if any."""

    url: str


class RankedLine(Closed):
    """A line that is set off: heads merged, the weight that of the strongest."""

    layer: int
    heads: list[int]
    query: int
    key: int
    weight: float


class Panel(Closed):
    """The numbers of one panel's caption; edges are (layer, head, query, key)."""

    title: str
    open: int
    visible: int
    live: int
    open_heads: int
    heads: int
    lines: int
    ranked: int
    answers: list[str]
    folded_layers: list[list[int]]
    ranked_lines: list[RankedLine]


class Figure(Closed):
    """A figure with its caption: `gossamer draw`."""

    files: list[str]
    tokens: list[str]
    outputs: list[int]
    caption: list[str]
    panels: list[Panel]


class Verbs(Closed):
    """The verbs that have a schema: `gossamer schema`."""

    verbs: list[str]


JsonSchema = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "required": ["$schema"]})]
RECORDS: dict[str, Any] = {
    "demo": RunReport,
    "sparsify": RunReport,
    "shrink": Shrunk,
    "recipes": dict[str, Preset] | Settings,
    "info": Info,
    "trace": CircuitRecord,
    "verify": TaskProof | AdditionProof,
    "compare": Comparison | Also | ComparisonAlso,
    "export": Written,
    "draw": Figure,
    "view": Written,
    "serve": Served,
    "schema": Verbs | JsonSchema,
}


def schema_of(verb: str) -> dict[str, Any]:
    """The JSON Schema of what a verb prints with `--json`."""
    made = TypeAdapter(RECORDS[verb]).json_schema(mode="serialization")
    if RECORDS[verb] is RunReport:  # its number is no field of the report, but of what is written
        made["properties"] = {"schema": {"const": SCHEMA_VERSION}, **made["properties"]}
        made["required"], made["additionalProperties"] = ["schema"], False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": f"gossamer {verb} --json",
    }
