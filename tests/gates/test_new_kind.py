"""A kind of gate that nothing but this file knows: defined here, it is trained, counted, saved, loaded and named.

`ResultGates` is what `gossamer.gates.gate_set` asks of a kind and no more: one learned logit per head, hard 0/1 with
the straight-through gradient and the noise that edges have, on what the head hands to the output projection.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from gossamer import SparsityConfig, attach, detach, gates_of, load, save, sparsify, trace
from gossamer.cli import main
from gossamer.data.sequences import collate_rows
from gossamer.errors import CheckpointError, GossamerError, UnsupportedModel
from gossamer.files import read_json, write_json
from gossamer.gates.gate import hard_gate
from gossamer.gates.gate_set import GateSet
from gossamer.gates.host import Host, Options
from gossamer.gates.kinds import kinds
from gossamer.gates.noise import NoiseKey, edge_uniform
from gossamer.gates.openness import Count, Openness
from gossamer.models.attach import attach_missing, find_gate_sets, gate_sets_of
from gossamer.models.checkpoint import load_dense, load_for_training, save_adapter, save_folder
from gossamer.models.forward import first_output, probe_inputs
from gossamer.models.parity import eager_reference
from gossamer.models.run_report import RunReport
from gossamer.models.summary import describe_model
from gossamer.training.adapters import add_adapters
from gossamer.training.metrics import Tally, counting
from gossamer.training.trainer import SparsityTrainer
from helpers import forked
from helpers.letters import LETTERS, save_tokenizer
from helpers.run_tiny import config, rows, trainer
from helpers.zoo import build

pytestmark = pytest.mark.integration  # whole runs

STREAM = 2  # of the noise, beside those of edges
BOTH = ("edges", "results")


class ResultGates(nn.Module, GateSet):
    """g = logit + c for each head of each layer; the result of a closed head is zero."""

    kind: ClassVar[str] = "results"
    block: ClassVar[str] = "result_gates"

    def __init__(self) -> None:
        super().__init__()
        self.price, self.bias, self.sampling, self.seed, self.step = 20.0, math.inf, True, 0, 0
        self.hooks: list[Any] = []
        self.seen: Openness | None = None
        self.add: Callable[[Count], None] | None = None

    def attach(self, host: Host) -> None:
        layers = list(host.anatomy)
        self.n_layers = len(layers)
        self.logits = nn.Parameter(torch.zeros(len(layers), layers[0].n_heads, device=host.device))
        host.model.add_module(self.block, self)
        for layer in layers:
            gate = partial(self.gate, layer.number, layer.o.split)
            self.hooks.append(layer.o.module.register_forward_pre_hook(gate))

    def detach(self, host: Host) -> None:
        for hook in self.hooks:
            hook.remove()
        host.model._modules.pop(self.block, None)

    def gate(
        self, layer: int, split: Callable[[Tensor], Tensor], module: nn.Module, given: tuple[Tensor]
    ) -> Tensor:
        n, rows = self.logits.shape[1], len(given[0])
        noise = None
        if self.sampling and module.training:
            key = NoiseKey(self.seed, self.step, layer)
            noise = edge_uniform(key, heads=range(1), queries=range(1), n_keys=n, stream=STREAM)[0, 0]
        z, p = hard_gate(self.logits[layer] + self.bias, noise)
        ones = torch.ones(rows, n, dtype=torch.int64)
        if self.seen is not None:
            self.seen.layers.append(layer)
            self.seen.expected.append(p.expand(rows, -1))
            self.seen.visible.append(ones)
        if self.add is not None:
            self.add(Count(self.kind, self.price, layer, ones, p.expand(rows, -1), (z > 0) * ones))
        return (split(given[0]) * z[:, None]).flatten(-2)

    @contextmanager
    def recording(self) -> Iterator[Openness]:
        with self.using(seen=Openness()):
            assert self.seen is not None
            yield self.seen

    @contextmanager
    def counting(self, add: Callable[[Count], None]) -> Iterator[None]:
        with self.using(add=add):
            yield


def gated(*wanted: str, family: str = "gpt2") -> PreTrainedModel:
    """A tiny model with gates of some kinds; of the results, the second head of the second layer is closed."""
    model = build(family)
    model.set_attn_implementation("eager")
    sets = attach_missing(model, wanted, Options("eager"))
    sets.bias = 0.1
    if (found := ResultGates.on(model)) is not None:
        with torch.no_grad():
            found.logits.copy_(torch.tensor([[3.0, 1.0, 2.0, 4.0], [1.0, -3.0, 2.0, 0.5]]))
    return model


def output(model: Any) -> Tensor:
    with torch.no_grad():
        return first_output(model, probe_inputs(model))


def logits(model: Any) -> Tensor:
    found = ResultGates.on(model)
    assert found is not None
    return found.logits.detach()


def test_a_kind_is_known_by_being_defined() -> None:
    assert kinds()["results"] is ResultGates
    assert list(kinds()) == sorted(kinds())

    class Unfinished(GateSet):
        kind: ClassVar[str] = "unfinished"
        block: ClassVar[str] = "unfinished_gates"

    assert "unfinished" not in kinds()


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("wanted", [("results",), BOTH])
def test_open_gates_are_the_base_model(wanted: tuple[str, ...], family: str) -> None:
    model = build(family)
    model.set_attn_implementation("eager")
    expected = output(model)
    sets = attach_missing(model, wanted, Options("eager"))
    assert sets.kinds == wanted
    assert torch.equal(output(model), expected)
    sets.bias = -9.0
    assert not torch.equal(output(model), expected)
    with sets.opened():
        assert torch.equal(output(model), expected)


def test_a_closed_head_adds_nothing() -> None:
    model = gated("results")
    expected = build("gpt2")
    with torch.no_grad():  # the rows of c_proj that the head is multiplied with
        expected.transformer.h[1].attn.c_proj.weight[8:16] = 0
    torch.testing.assert_close(output(model), eager_reference(expected))


def test_gates_that_a_layer_passes_by_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("gpt2")
    monkeypatch.setattr(model.transformer.h[1].attn.c_proj, "register_forward_pre_hook", lambda hook: None)
    monkeypatch.setattr(ResultGates, "detach", lambda self, host: host.model._modules.pop(self.block))
    with pytest.raises(
        UnsupportedModel, match=r"the gates on results ran in 1 of 2 layers: .* never run: \[1\]"
    ):
        attach_missing(model, ["results"], Options())
    assert not find_gate_sets(model)
    assert "result_gates" not in model.config.__dict__


def test_gates_that_are_not_the_base_model_when_open_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResultGates, "opened", lambda self: self.using(bias=-9.0))
    model = build("gpt2")
    expected = output(model)
    with pytest.raises(UnsupportedModel, match="with open gates differs from its own eager attention"):
        attach_missing(model, BOTH, Options())
    assert not find_gate_sets(model)
    assert torch.equal(output(model), expected)


def test_detach_restores_the_base_one_kind_at_a_time() -> None:
    model = gated("results")
    closed = output(model)
    before = trace(model, probe_inputs(model)["input_ids"], threshold=0.1)
    assert len(before) > 0
    assert find_gate_sets(model).kinds == ("results",)  # which was traced through edge gates of its own
    torch.testing.assert_close(output(model), closed)
    attach(model, bias=0.1)
    assert find_gate_sets(model).kinds == BOTH
    detach(model, implementation="eager")
    base = build("gpt2")
    assert torch.equal(output(model), eager_reference(base))
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in base.named_parameters()}
    assert not {"edge_gates", "result_gates", "attn_implementation"} & model.config.__dict__.keys()


def test_a_copy_has_gates_of_its_own() -> None:
    model = gated(*BOTH)
    other, before = copy.deepcopy(model), output(model)
    with torch.no_grad():
        logits(other).fill_(-9.0)
    assert torch.equal(output(model), before)
    assert not torch.equal(output(other), before)


def test_edges_are_asked_for_where_there_are_none() -> None:
    with pytest.raises(UnsupportedModel, match=r"has no gates on edges \(it has gates on results\)"):
        gates_of(gated("results"))


# ---- training ----


def test_the_trainer_attaches_what_is_asked_for_and_missing(tmp_path: Path) -> None:
    made = trainer(str(tmp_path), gates="results, edges")
    assert made.gates.kinds == BOTH
    own = logits(made.model)
    weights = dict(made.model.named_parameters())
    assert weights["result_gates.logits"].data_ptr() == own.data_ptr()
    optimizer = made.create_optimizer()
    decay = [
        group["weight_decay"]
        for group in optimizer.param_groups
        for weight in group["params"]
        if weight.data_ptr() == own.data_ptr()
    ]
    assert decay == [0.0]
    with pytest.raises(
        GossamerError, match=r"gates='colours' is not known: expected one of .*edges.*results"
    ):
        config(str(tmp_path), gates="edges,colours")


def test_the_penalty_reaches_the_logits_and_so_does_the_divergence(tmp_path: Path) -> None:
    made = trainer(str(tmp_path), gates="results")
    made.gates.bias = 0.0
    made.model.train()
    with made.gates.recording() as seen:
        made.model(**rows(4, 1).columns)
    penalty = made.gates.penalty(seen)
    assert penalty.item() == pytest.approx(0.5)  # of logits that are zero, whatever the price
    weight = dict(made.model.named_parameters())["result_gates.logits"]
    (slope,) = torch.autograd.grad(penalty, weight, retain_graph=True)
    torch.testing.assert_close(slope, torch.full((2, 4), 0.25 / 8))
    loss = made.compute_loss(made.model, dict(rows(4, 1).columns))
    (through,) = torch.autograd.grad(loss, weight)
    assert not torch.allclose(through * (1 + made.controller.multiplier), slope)


def test_noise_is_repeated_by_its_name(tmp_path: Path) -> None:
    made = trainer(str(tmp_path), gates="results")
    made.gates.bias = 0.0
    made.model.train()

    def drawn(step: int) -> Tensor:
        made.gates.name_noise(step=step)
        return made.model(**rows(4, 1).columns).logits

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SparsityTrainer:
    """A run of twelve steps on both kinds, with all of its checkpoints."""
    out = tmp_path_factory.mktemp("run")
    made = trainer(str(out), gates="edges,results", ceiling="kl=9", save_total_limit=None)
    made.train()
    return made


def test_a_short_run_closes_units_of_both_kinds_and_counts_them(tmp_path: Path) -> None:
    given = {"ceiling": "kl=20", "learning_rate": 0.1, "max_steps": 16, "gradient_accumulation_steps": 1}
    made: SparsityConfig = config(str(tmp_path), gates="edges,results", eval_strategy="no", **given)
    result = sparsify(build("gpt2"), rows(64, 1), rows(8, 2), made, data_collator=collate_rows)
    found = result.metrics
    assert found["open_results"] == int(found["open_results"]) < 8  # the same for each row
    assert found["density_results"] == found["open_results"] / 8
    assert 0 <= found["density_edges"] < 1
    price, visible = result.trainer.gates.of_kind("results").price, 2 * 4 * 12 * 13 / 2
    priced = price * found["open_results"] + found["open_edges"]
    assert found["density"] == pytest.approx(priced / (price * 8 + visible))
    assert result.per_group["results"] == [
        [float(x) for x in row] for row in logits(result.model) + result.trainer.gates.bias > 0
    ]
    logged = {name for entry in result.history for name in entry}
    assert {"expected_open_edges", "expected_open_results"} <= logged


def test_a_resumed_run_is_the_uninterrupted_one(finished: SparsityTrainer, tmp_path: Path) -> None:
    again = trainer(str(tmp_path), gates="edges,results", ceiling="kl=9", save_total_limit=None)
    before = logits(again.model).clone()
    again.train(resume_from_checkpoint=f"{finished.args.output_dir}/checkpoint-6")
    for folder in ("checkpoint-8", "checkpoint-12"):
        ours, theirs = (
            load_file(Path(run.args.output_dir) / folder / "model.safetensors") for run in (again, finished)
        )
        assert ours.keys() == theirs.keys()
        assert not torch.equal(ours["result_gates.logits"], before)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.state_dict() == finished.state_dict()


def test_another_choice_of_kinds_does_not_resume(finished: SparsityTrainer, tmp_path: Path) -> None:
    again = trainer(str(tmp_path), ceiling="kl=9")
    with pytest.raises(CheckpointError, match="gates edges on a checkpoint made with gates edges,results"):
        again.train(resume_from_checkpoint=f"{finished.args.output_dir}/checkpoint-6")


def test_the_best_model_has_the_logits_of_its_checkpoint(finished: SparsityTrainer) -> None:
    best = Path(str(finished.state.best_model_checkpoint))
    expected = load_file(best / "model.safetensors")["result_gates.logits"]
    assert torch.equal(logits(finished.model), expected)
    with torch.no_grad():
        logits(finished.model).fill_(7.0)
    finished._load_best_model()
    assert torch.equal(logits(finished.model), expected)
    assert torch.equal(output(load(best, impl="eager")), output(finished.model.eval()))


# peft 0.21 reads a name that transformers 5.23 deprecates.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_beside_adapters_gates_are_trained_saved_and_loaded(tmp_path: Path) -> None:
    save_folder(build("gpt2"), tmp_path / "base")
    model = load_dense(tmp_path / "base")
    attach_missing(model, BOTH, Options("eager"))
    adapted = add_adapters(model, rank=2)
    made = SparsityTrainer(
        adapted,
        config(str(tmp_path / "run"), max_steps=4, gates="edges,results", ceiling="kl=9"),
        base=build("gpt2"),
        train_dataset=rows(64, 1),
        eval_dataset=rows(8, 2),
        data_collator=collate_rows,
    )
    made.train()
    best = logits(adapted).clone()
    with torch.no_grad():
        logits(adapted).fill_(7.0)
    made._load_from_checkpoint(str(tmp_path / "run" / "checkpoint-4"))
    last = load_file(tmp_path / "run" / "checkpoint-4" / "gates.safetensors")["result_gates.logits"]
    assert torch.equal(logits(adapted), last)
    assert bool((last != 0).all())
    made._load_best_model()
    assert torch.equal(logits(adapted), best)
    save_adapter(adapted, tmp_path / "adapter")
    again = load(tmp_path / "adapter", impl="eager")
    assert find_gate_sets(again).kinds == BOTH
    torch.testing.assert_close(output(again), output(adapted.eval()))
    assert set(describe_model(tmp_path / "adapter")["gates"]) == set(BOTH)


# ---- folders ----


@pytest.mark.parametrize("wanted", [("results",), BOTH])
def test_what_is_saved_comes_back(wanted: tuple[str, ...], tmp_path: Path) -> None:
    model = gated(*wanted)
    save(model, tmp_path / "model")
    again = load(
        tmp_path / "model", impl="eager", **({} if "edges" in wanted else {"attn_implementation": "eager"})
    )
    assert gate_sets_of(again).kinds == wanted
    assert torch.equal(output(again), output(model))
    names = load_file(tmp_path / "model" / "model.safetensors").keys()
    assert not [name for name in names if "result_gates" in name]  # the weights are GPT-2's
    found = describe_model(tmp_path / "model")
    assert found["gates"] == {kind: {"bias": 0.1, "reads": "logit"} for kind in wanted}
    assert found["parameters"] == build("gpt2").num_parameters()


def test_plain_transformers_does_not_run_it_dense(tmp_path: Path) -> None:
    save(gated("results"), tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with pytest.raises(UnsupportedModel, match="but has no gates"):
        output(plain)
    for refused in (
        load_for_training,
        lambda place: SparsityTrainer(load_dense(place), config(str(tmp_path / "run"))),
    ):
        with pytest.raises(GossamerError, match="saved with gates"):
            refused(tmp_path / "model")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"version": 2, "bias": 0.0},
            r"written by a newer gossamer \(result_gates version 2\): expected versions up to 1",
        ),
        ({"version": 1}, "result_gates is {'version': 1}: expected {version, bias}"),
        ({"version": 1, "bias": "closed"}, "result_gates is .*: expected {version, bias}"),
        ("open", "result_gates is 'open': expected {version, bias}"),
    ],
)
def test_a_block_that_means_nothing_here_is_refused(block: Any, message: str, tmp_path: Path) -> None:
    save(gated(*BOTH), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    write_json(path, read_json(path) | {"result_gates": block})
    for opened in (load, describe_model):
        with pytest.raises(CheckpointError, match=message):
            opened(tmp_path / "model")


def test_a_kind_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    save(gated("edges"), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    write_json(path, read_json(path) | {"colour_gates": {"version": 1, "bias": 0.0}})
    for opened in (load, describe_model, load_for_training):
        with pytest.raises(
            CheckpointError, match=r"a kind that is not known here \(colour_gates\): expected .*edge_gates"
        ):
            opened(tmp_path / "model")


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({}, "no tensor for result_gates.logits"),
        ({"result_gates.logits": torch.zeros(1)}, r"\(1,\) for result_gates"),
    ],
)
def test_lost_parameters_are_refused(kept: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    save(gated("results"), tmp_path / "model")
    save_file(kept, tmp_path / "model" / "gates.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "model")


def command(place: Path, out: Path, *more: str) -> list[str]:
    """The arguments of a short run on both kinds, on a model and a text that are put into a folder."""
    save_folder(build("gpt2"), place / "base")
    save_tokenizer(place / "base")
    letters = torch.randint(2, len(LETTERS), (200, 60), generator=torch.Generator().manual_seed(0))
    text = "\n\n".join("".join(LETTERS[i] for i in row) for row in letters.tolist())
    (place / "text.txt").write_text(text)
    given = ["sparsify", str(place / "base"), "--data", str(place / "text.txt"), "--out", str(out), *more]
    sizes = "--steps 4 --length 16 --held-out 6 --held-out-share 0.2 --ceiling kl=9"
    return [*given, *sizes.split(), "--gates", "edges,results"]


@pytest.mark.integration
def test_a_whole_command_names_the_kind(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert main(command(tmp_path, out, "--batch", "4")) == 0
    said = capsys.readouterr()
    assert "| layer | open results per row |" in said.out
    assert "open results per row | " in said.out
    assert "open results" in said.err  # the progress line
    report = RunReport.load(out)
    assert [len(layer) for layer in report.gates["results"].per_group] == [4, 4]
    assert "open_results" in report.held_out
    assert "Open results per held-out row" in (out / "report.html").read_text()
    assert "until few edges and results are open" in (out / "model" / "README.md").read_text()
    assert find_gate_sets(load(out / "model")).kinds == BOTH
    assert main(["info", str(out)]) == 0
    said = capsys.readouterr()
    assert "gates on edges, bias c = " in said.out
    assert "gates on results, bias c = " in said.out
    assert "open results per held-out row: " in said.out
    assert json.loads((out / "model" / "config.json").read_text())["result_gates"]["version"] == 1


@pytest.mark.integration
def test_two_ranks_that_share_one_model_are_one_process(tmp_path: Path) -> None:
    still = ["--set", "gate.bias=4", "--set", "gate.final_bias=0.5"]
    still += [
        "--set",
        "gate.noise_until=0",
        "--set",
        "eval_strategy=no",
    ]  # so that the last model is what is left
    asked = {**forked.SHARDED, "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT", "IMPORT": "gates.test_new_kind"}
    program = ["-m", "helpers.run_sharded", *command(tmp_path, tmp_path / "two", "--batch", "4", *still)]
    done = forked.run(program, 2, **asked)
    assert done.returncode == 0, done.stderr
    assert main(command(tmp_path, tmp_path / "one", "--batch", "8", *still)) == 0
    two, one = (load(tmp_path / name / "model").state_dict() for name in ("two", "one"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-5)
    assert bool((one["result_gates.logits"] != 0).all())


def test_tallies_of_a_static_kind_have_no_queries() -> None:
    model, tally = gated("results"), Tally()
    with torch.no_grad(), counting(gate_sets_of(model), tally):
        model(**rows(4, 1).columns)
    tally.sums["rows"] = 4
    assert tally.per_group("results") == [[1.0] * 4, [1.0, 0.0, 1.0, 1.0]]
    assert tally.keys_per_query("results") == []
    assert "keys_per_query" not in tally.summary()
