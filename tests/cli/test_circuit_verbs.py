"""The verbs trace, verify, compare and export: what they print, what they write, and how they refuse."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch

from gossamer.circuits.circuit import UnitsLeft
from gossamer.circuits.export.mib import from_mib
from gossamer.circuits.export.record import load_circuit
from gossamer.cli import main
from gossamer.data.pairs import Batch
from gossamer.data.registry import task_vocabulary
from gossamer.errors import GossamerWarning
from gossamer.gates.host import Options
from gossamer.gates.learned import OPEN
from gossamer.models.attach import attach, attach_missing, find_gate_sets
from gossamer.models.checkpoint import load, load_dense, save, save_folder
from gossamer.models.run_report import RunReport
from gossamer.recipes import also, compare, verify_task
from gossamer.recipes.addition.explain.findings import FILE, edge_findings_beside, in_words
from helpers.letters import save_tokenizer
from helpers.records import validated
from helpers.zoo import adder, build, tiny, tiny_gated


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dense and a gated one-digit model that do not add, and a small GPT-2 that knows no task."""
    root = tmp_path_factory.mktemp("models")
    model = adder()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "query.weight" in name or "key.weight" in name:
                weight.mul_(60)
    save_folder(model, root / "base")
    attach(model, bias=-1.0)
    save(model, root / "sparse")
    save_folder(tiny(scale=1.0, n_layer=2, vocab_size=len(task_vocabulary())), root / "words")
    save(tiny_gated(), root / "other")
    return root


def line(capsys) -> str:
    """What was refused: the only line on standard error besides progress of saving and loading."""
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("gossamer: "))


def test_trace_says_which_heads_are_closed_and_how_many_neurons_are_left(tmp_path, capsys):
    model = adder(1)
    attach_missing(model, ("edges", "heads", "neurons"), Options("blockwise"))
    sets = find_gate_sets(model)
    sets.bias = 9.0
    with torch.no_grad():
        sets.of_kind("heads").logits["0"][1] = -OPEN
        sets.of_kind("neurons").logits["1"][7:] = -OPEN
    save(model, tmp_path / "sparse")
    ask = [
        "trace",
        str(tmp_path / "sparse"),
        "--sum",
        "3+8",
        "--digits",
        "1",
        "--out",
        str(tmp_path / "c.json"),
    ]
    assert main(ask) == 0
    shown = capsys.readouterr().out
    assert "1 of 4 heads are closed: 0.1" in shown
    assert "neurons left in layers 0 to 1: 64, 7 of 64 each" in shown
    circuit = load_circuit(tmp_path / "c.json")
    assert circuit.left == UnitsLeft(((0, 1),), ((64, 64), (7, 64)))
    assert set(zip(circuit.layer, circuit.head, strict=True)) == {(0, 0), (1, 0), (1, 1)}


def test_trace_lists_edges_and_export_reads_what_it_wrote(folders, tmp_path, capsys):
    path = tmp_path / "circuit.json"
    ask = ["trace", str(folders / "sparse"), "--sum", "3+8", "--sum", "1+1", "--digits", "1"]
    assert main([*ask, "--out", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "open edges of" in shown
    circuit = load_circuit(path)
    standing = circuit.standing()
    message = f"{len(standing.always)} edges are open on every prompt, {len(standing.sometimes)} on some"
    assert f"{message}, {standing.never:,} open on none" in shown
    assert circuit.n_prompts == 2
    assert circuit.tokens[0][:4] == ("3", "+", "8", "=")
    assert main([*ask, "--json", "--live"]) == 0
    record = validated("trace", capsys.readouterr().out)
    assert len(record["edges"]["head"]) == len(circuit.live())
    for form in ("graphml", "neuronpedia", "csv", "json"):
        target = tmp_path / f"circuit.{form}"
        assert main(["export", str(path), "--format", form, "--out", str(target)]) == 0
        assert target.is_file()


def test_verify_proves_explains_and_tells_by_its_exit_code(folders, tmp_path, capsys):
    path = tmp_path / "proof.json"
    ask = ["verify", str(folders / "base"), str(folders / "sparse"), "--digits", "1"]
    code = main([*ask, "--out", str(path)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "sums of 100" in shown
    assert "precision" in shown
    record = json.loads(path.read_text())
    proof = record["proof"]
    assert proof["sufficient"]["prompt"]["same"] == 100
    holds = not proof["leaks"]["changed"] and not proof["necessary"]["redundant"]
    assert code == (0 if holds else 1)
    assert main([*ask, "--json"]) == code
    assert validated("verify", capsys.readouterr().out)["verification"]["prompts"] == 100


def test_verify_closes_random_subsets_when_asked(folders, capsys):
    ask = ["verify", str(folders / "base"), str(folders / "sparse"), "--digits", "1"]
    code = main([*ask, "--ablation", "subsets", "--json"])
    live, necessary = json.loads(capsys.readouterr().out)["proof"]["subsets"]
    assert (live["circuit"], necessary["circuit"], live["draws"]) == ("live", "necessary", 32)
    assert live["always"] <= live["worst"]["hits"] <= live["worst"]["n"] == 100
    assert code == 1 or live["worst"]["hits"] == 100
    assert main([*ask, "--ablation", "subsets"]) == code
    assert "live edges, worst of 32 random subsets" in " ".join(capsys.readouterr().out.split())
    assert main([*ask, "--ablation", "some"]) == 2
    assert "one of total, subsets" in line(capsys)


def carried(page) -> dict[str, str]:
    return json.loads(re.findall(r'id="data">(.*?)</script>', page.read_text(), re.S)[0])["carries"]


def test_what_verify_found_is_in_the_page_and_nothing_where_it_never_ran(folders, tmp_path, capsys):
    for name in ("base", "sparse"):
        shutil.copytree(folders / name, tmp_path / name)
    (tmp_path / "sparse" / FILE).unlink(missing_ok=True)
    record, page = tmp_path / "record.json", tmp_path / "view.html"
    show = ["view", str(tmp_path), "--sum", "3+8"]
    assert main(show) == 0
    assert carried(page) == {}
    ask = ["verify", str(tmp_path / "base"), str(tmp_path / "sparse"), "--digits", "1"]
    main([*ask, "--out", str(record)])
    assert FILE in capsys.readouterr().err  # it is said where the words were put
    assert main(show) == 0
    words = carried(page)
    found = json.loads(record.read_text())["explanation"]["edges"]
    assert words.keys() == {",".join(map(str, edge["edge"])) for edge in found}
    assert all("open" in phrase for phrase in words.values())
    (tmp_path / "sparse" / FILE).unlink()
    assert main([*show, "--edge-findings", str(record)]) == 0  # the whole record says it too
    assert carried(page) == words


def test_a_claim_that_did_not_hold_is_not_made():
    edge = {"when": "always open", "gate": {"digits": []}, "carries": "the carry", "certain": True}
    edges = [{**edge, "edge": [0, 0, 9, 0]}, {**edge, "edge": [0, 1, 9, 3], "certain": False}]
    edges.append(
        {**edge, "edge": [1, 0, 9, 0], "gate": {"digits": [0, 1, 3]}, "when": "open on 9 %, by a lot"}
    )
    bundles = [
        {"head_output": [0, 0, 9], "reads": [0, 3], "hands": "both digits", "certain": True},
        {"head_output": [0, 1, 9], "reads": [3], "hands": "the digit", "certain": False},
        {"head_output": [1, 0, 9], "reads": [0], "hands": "the sum", "certain": True},
    ]
    assert list(in_words({"edges": edges, "head_outputs": bundles}).values()) == [
        "always open; alone it carries the carry; the head, with what else it reads, hands over both digits",
        "always open",
        "open on 9 %, by 3 digits together; alone it carries the carry; the head hands over the sum",
    ]


def test_words_about_other_weights_are_not_shown(folders, tmp_path, capsys):
    for name in ("base", "sparse"):
        shutil.copytree(folders / name, tmp_path / name)
    main(["verify", str(tmp_path / "base"), str(tmp_path / "sparse"), "--digits", "1"])
    model = load(tmp_path / "sparse")
    with torch.no_grad():
        next(model.parameters()).mul_(1.001)
    save_folder(model, tmp_path / "other")
    shutil.copy(tmp_path / "sparse" / FILE, tmp_path / "other" / FILE)
    with pytest.warns(GossamerWarning, match="about other weights and is left aside"):
        assert edge_findings_beside(tmp_path / "other", load(tmp_path / "other")) == {}
    (tmp_path / "other" / FILE).write_text("{}")
    capsys.readouterr()
    show = ["view", str(tmp_path), "--sum", "3+8", "--edge-findings", str(tmp_path / "other" / FILE)]
    assert main(show) == 2
    assert "does not say what edges carry" in line(capsys)


def known_prompts(model, folder, task, n, seed):
    """Prompts on which any model is right: its own answers are what counts as right."""
    ids = [torch.randint(0, 13, (n, 6), generator=torch.Generator().manual_seed(seed + i)) for i in (0, 9)]
    with torch.no_grad():
        clean, corrupt = (model(input_ids=x).logits[:, -1] for x in ids)
    right, wrong = ((sign * (clean - corrupt)).argmax(-1) for sign in (1, -1))
    masks = [torch.nn.functional.one_hot(x, 13).bool() for x in (right, wrong)]
    return [Batch(*ids, *masks, "logit_difference", task, torch.zeros(n))]


def test_compare_counts_heads_and_edges(tmp_path, monkeypatch, capsys):
    model = tiny(scale=8.0)
    save_folder(model, tmp_path / "base")
    save(tiny_gated(), tmp_path / "sparse")

    monkeypatch.setattr(compare, "task_prompts", known_prompts)
    ask = ["compare", str(tmp_path / "base"), str(tmp_path / "sparse"), "--task", "ioi", "--n-prompts", "6"]
    assert main([*ask, "--json"]) == 0
    record = validated("compare", capsys.readouterr().out)
    assert record["heads"]["of"] == 6
    assert record["edges"]["base"] >= 1
    assert record["edges_ratio"] is None or record["edges_ratio"] > 0
    assert record["attention_edges"]["of"] == 3 * 2 * 6 * 7 // 2
    assert main(ask) == 0
    shown = capsys.readouterr().out
    assert "needed for 90 %" in shown
    assert "attention edges a prompt" in shown


def test_compare_says_where_attention_alone_has_no_effect(tmp_path, monkeypatch, capsys):
    # Values that are all the same: whatever a head reads, it brings nothing that the task could need.
    for name, model in (("base", tiny(scale=8.0)), ("sparse", tiny_gated())):
        with torch.no_grad():
            for block in model.transformer.h:
                block.attn.c_attn.weight[:, 32:] = 0.0
        (save_folder if name == "base" else save)(model, tmp_path / name)
    monkeypatch.setattr(compare, "task_prompts", known_prompts)
    ask = ["compare", str(tmp_path / "base"), str(tmp_path / "sparse"), "--task", "ioi", "--n-prompts", "6"]
    assert main([*ask, "--json"]) == 0
    record = validated("compare", capsys.readouterr().out)
    assert record["attention_edges"] == {"base": None, "sparse": None, "of": None}
    assert "too near zero to divide by" in record["attention_edges_refused"]
    assert main(ask) == 0
    assert "attention edges: the effect on ioi is" in " ".join(capsys.readouterr().out.split())


def test_verify_proves_a_language_task_length_by_length(tmp_path, monkeypatch, capsys):
    save_folder(tiny(scale=8.0), tmp_path / "base")
    save(tiny_gated(), tmp_path / "sparse")

    def two_lengths(model, folder, task, n, seed):
        found = known_prompts(model, folder, task, n, seed)
        short = found[0]
        other = short.template + 1
        cut = replace(short, clean=short.clean[:, 1:], corrupt=short.corrupt[:, 1:], template=other)
        return [cut, *found]

    monkeypatch.setattr(verify_task, "task_prompts", two_lengths)
    ask = ["verify", str(tmp_path / "base"), str(tmp_path / "sparse"), "--task", "ioi", "--n-prompts", "6"]
    code = main([*ask, "--json"])
    record = validated("verify", capsys.readouterr().out)
    assert record["sparse_right"]["n"] == record["leaks"]["n"] == 12
    assert record["sufficient"]["prompt"] == {
        "hits": 12,
        "n": 12,
        "interval": pytest.approx([0.757, 1.0], abs=1e-3),
    }
    assert record["necessary"]["n"] == pytest.approx(12 * record["edges_a_prompt"]["live"])
    assert set(record["stable"]) == {"5", "6"}
    assert record["others"] == {}
    assert record["paraphrases"]["templates"] == 2
    assert code == (0 if record["all_claims_hold"] else 1)
    assert main(ask) == code
    message = " ".join(capsys.readouterr().out.split())
    assert "live edges necessary" in message
    assert "2 templates: two of them share" in message
    failed = f"Some claims fail (exit code 1): not minimal: {record['redundant']} live edges are redundant"
    assert (failed in message) == bool(code)
    main([*ask, "--ablation", "subsets", "--json"])
    subsets = json.loads(capsys.readouterr().out)["subsets"]
    assert [found["worst"]["n"] for found in subsets] == [12, 12]
    assert record["subsets"] == []
    assert main([*ask, "--other", str(tmp_path / "sparse")]) == code
    message = " ".join(capsys.readouterr().out.split())
    assert "6 tokens: two models share 1.000 of their edges, 1.000 with heads renamed" in message


def test_a_component_circuit_is_written_as_mib_reads_it(tmp_path, monkeypatch, capsys):
    save_folder(tiny(scale=8.0), tmp_path / "base")
    monkeypatch.setattr(compare, "task_prompts", known_prompts)
    path = tmp_path / "ioi.json"
    ask = ["export", str(tmp_path / "base"), "--format", "mib", "--task", "ioi", "--n-prompts", "6"]
    assert main([*ask, "--edges", "20", "--out", str(path)]) == 0
    graph, scores, edge_mask = from_mib(json.loads(path.read_text()))
    assert (graph.n_layers, graph.n_heads) == (3, 2)
    assert 0 < int(edge_mask.sum()) <= 20
    strongest = scores.abs().flatten().topk(20).values.min()
    assert (scores[edge_mask].abs() >= strongest).all()
    assert main([*ask, "--out", str(path)]) == 0
    whole = from_mib(json.loads(path.read_text()))[2]
    assert int(whole.sum()) >= 1
    capsys.readouterr()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (["trace", "sparse"], "both or neither of --sum and --prompt"),
        (["trace", "sparse", "--sum", "36+28", "--digits", "1"], "operands of at most 1 digits"),
        (["trace", "words", "--sum", "36+28"], "a model of 13 tokens"),
        (["trace", "sparse", "--prompt", "hello"], "no tokenizer in"),
        (["trace", "./nowhere", "--sum", "36+28"], "nowhere does not exist"),
        (["trace", "words", "--prompt", "hello", "--digits", "1"], "--digits with --prompt"),
        (["verify", "words", "words", "--task", "ioi", "--digits", "1"], "--digits with --task"),
        (["verify", "base", "sparse", "--n-prompts", "8"], "--n-prompts with sums"),
        (
            ["trace", "base", "--sum", "3+8", "--digits", "1", "--threshold", "2"],
            "threshold=2.0 is out of range",
        ),
        (["verify", "base", "base", "--digits", "1"], "has no gates"),
        (["verify", "words", "sparse", "--digits", "1"], "a model of 13 tokens"),
        (["verify", "words", "words", "--task", "ioi"], "of words has no gates"),
        (["verify", "words", "words", "--task", "ioi", "--smallest"], "--smallest with --task"),
        (["verify", "base", "sparse", "--digits", "1", "--other", "base"], "of base has no gates"),
        (
            ["verify", "base", "sparse", "--digits", "1", "--other", "other"],
            "other: 13 tokens, 3 layers of 2 heads: expected 13 tokens, 2 layers of 2 heads",
        ),
        (["verify", "base", "other", "--task", "ioi", "--other", "sparse"], "sparse: 13 tokens, 2 layers"),
        (["verify", "words", "other", "--task", "ioi"], "a base of 268 tokens and a sparse model of 13"),
        (
            ["compare", "words", "words", "--task", "ioi", "--n-prompts", "0"],
            "n_prompts=0 is out of range: expected 1 to 100000",
        ),
        (["compare", "words", "words", "--task", "sudoku"], "task='sudoku' is not known"),
        (
            ["compare", "words", "words", "--task", "ioi", "--n-prompts", "8"],
            "the model does not know this task",
        ),
        (["compare", "base", "base", "--task", "ioi"], "expected gpt2, gpt_neox, llama"),
        (
            ["compare", "words", "words", "--task", "ioi", "--ablation", "half"],
            "ablation='half' is not known",
        ),
        (["export", "missing.json", "--out", "x"], "cannot be read"),
        (["export", "missing.json", "--out", "x", "--edges", "3"], "--edges with --format graphml"),
        (["export", "missing.json", "--out", "x", "--links", "3"], "--links with --format graphml"),
        (
            ["export", "words", "--out", "x", "--format", "mib", "--task", "ioi", "--limit", "3"],
            "--limit with --format mib",
        ),
        (["export", "words", "--out", "x", "--format", "mib"], "--format mib without --task"),
        (["export", "words", "--out", "x", "--task", "ioi"], "--format graphml with --task"),
        (
            ["export", "words", "--out", "x", "--format", "mib", "--task", "ioi", "--edges", "0"],
            "edges=0",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(folders, monkeypatch, capsys, ask, message):
    monkeypatch.chdir(folders)
    assert main(ask) == 2
    assert message in line(capsys)


def test_a_graph_too_large_is_refused_with_its_size(folders, tmp_path, capsys):
    path = tmp_path / "circuit.json"
    main(["trace", str(folders / "sparse"), "--sum", "3+8", "--digits", "1", "--out", str(path)])
    capsys.readouterr()
    assert main(["export", str(path), "--out", str(tmp_path / "x"), "--limit", "1"]) == 2
    assert "a graph of" in line(capsys)


@pytest.mark.parametrize(("verb", "said"), [
    (("trace", "x", "--prompt", "a"), "interrupted\n"),
    (("demo", "--out", "x"), "interrupted; run the same command again to continue\n"),
    (("sparsify", "x", "--out", "x"), "interrupted; run the same command again with --resume to continue\n"),
])  # fmt: skip
def test_ctrl_c_says_what_continues_a_verb(verb, said, tmp_path, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    for place in ("recipes.trace.trace_text", "recipes.addition.run.run_demo", "recipes.text.run_job"):
        monkeypatch.setattr(f"gossamer.{place}", stopped)
    assert main(verb) == 130
    assert capsys.readouterr().err == f"gossamer: {said}"


@pytest.fixture
def readers(tmp_path):
    """A base and a gated model of letters with their tokenizer, the report of a run, and a text."""
    base = build("gpt2")
    for name, model in (("base", base), ("sparse", build("gpt2"))):
        if name == "sparse":
            attach(model, bias=0.5)
        (save if name == "sparse" else save_folder)(model, tmp_path / name)
        save_tokenizer(tmp_path / name)
    RunReport(ceiling="kl=0.1", feasible=True, held_out={"kl": 0.0625, "kl_se": 0.01}).write(tmp_path)
    (tmp_path / "text.txt").write_text("the cat sat on the mat and looked at the dog. " * 40)
    return tmp_path


def test_compare_also_tells_divergence_beside_the_ceilings_own(readers, capsys):
    ask = ["compare", str(readers / "base"), str(readers / "sparse"), "--also", str(readers / "text.txt")]
    assert main([*ask, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["ceiling"], record["held"]) == ("kl=0.1", {"kl": 0.0625, "kl_se": 0.01})
    (found,) = record["also"]
    base, sparse = (load_dense(readers / "base"), load(readers / "sparse"))
    rows = also.text_rows(str(readers / "text.txt"), readers / "sparse", readers / "base", sparse)
    ids = rows.columns["input_ids"]
    with torch.no_grad():
        ours, theirs = (
            model.eval()(input_ids=ids).logits[:, :-1].log_softmax(-1) for model in (sparse, base)
        )
    kl = (theirs.exp() * (theirs - ours)).sum(-1)
    nll = [-x.gather(-1, ids[:, 1:, None]).mean() for x in (ours, theirs)]
    assert found["kl"] == pytest.approx(float(kl.mean()), rel=1e-4)
    assert found["kl"] > 0
    assert found["delta_ce"] == pytest.approx(float(nll[0] - nll[1]), abs=1e-5)
    assert found["agreement"] == pytest.approx(
        float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()), rel=1e-5
    )
    assert (found["rows"], found["length"]) == (len(ids), 64)
    assert main([*ask, "--also", str(readers / "text.txt")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "its own text" in shown
    assert "0.0625" in shown


def test_a_model_does_not_diverge_from_itself_and_no_report_is_said(readers, capsys):
    (readers / "report.json").unlink()
    ask = ["compare", str(readers / "base"), str(readers / "base"), "--also", str(readers / "text.txt")]
    assert main([*ask, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["held"] is record["ceiling"] is None
    assert record["also"][0]["kl"] == pytest.approx(0, abs=1e-6)
    assert record["also"][0]["agreement"] == 1
    assert main(ask) == 0
    assert "no report beside the model" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ([], "neither --task nor --also"),
        (["--also", "short.txt"], "rows of 64 tokens"),
        (["--also", "text.txt", "--ablation", "mean"], "--ablation with --also alone"),
        (["--also", ""], "an empty argument after --also"),
    ],
)
def test_compare_also_refuses_in_one_line(readers, ask, message, capsys):
    (readers / "short.txt").write_text("abc")
    given = [str(readers / word) if word.endswith(".txt") else word for word in ask]
    assert main(["compare", str(readers / "base"), str(readers / "sparse"), *given]) == 2
    assert message in line(capsys)
