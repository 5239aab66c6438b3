"""--json on every verb: one record on standard output, as the schema that is documented for it."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gossamer.cli import VERBS, main
from gossamer.cli.schemas import RECORDS, schema_of
from gossamer.models.attach import attach
from gossamer.models.checkpoint import save
from helpers import zoo
from helpers.letters import save_tokenizer
from helpers.records import validated

NAMES = {verb.__name__.rpartition(".")[2]: verb for verbs in VERBS.values() for verb in verbs}
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("json")
    model = zoo.build("gpt2")
    model.save_pretrained(root / "base")
    save_tokenizer(root / "base")
    attach(model, bias=-0.05)
    save(model, root / "sparse")
    save_tokenizer(root / "sparse")
    return root


def test_every_verb_has_json_and_a_schema() -> None:
    assert NAMES.keys() == RECORDS.keys()
    for name, verb in NAMES.items():
        assert "json_output" in inspect.signature(getattr(verb, name)).parameters, name


@pytest.mark.parametrize("verb", RECORDS)
def test_each_schema_is_one_and_refuses_what_is_no_record(verb: str) -> None:
    schema = schema_of(verb)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == f"gossamer {verb} --json"
    for wrong in ({"no": "record"}, [], None):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_each_verb_s_record_is_checked_somewhere() -> None:
    """A verb that no test validates would have a schema that nobody holds it to."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))
    checked = {*re.findall(r'validated\("(\w+)"', text), *re.findall(r'said\("(\w+)"', text)}
    assert checked == RECORDS.keys()


def said(verb: str, capsys: Any, *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main([verb, *map(str, arguments), "--json"]) == 0
    return validated(verb, capsys.readouterr().out)


def test_files_that_are_written_are_named_with_their_size(place: Path, tmp_path: Path, capsys: Any) -> None:
    circuit = tmp_path / "circuit.json"
    said("trace", capsys, place / "sparse", "--prompt", "abc", "--out", circuit)
    for form in ("graphml", "csv"):
        record = said("export", capsys, circuit, "--format", form, "--out", tmp_path / form)
        assert record == {"path": str(tmp_path / form), "bytes": (tmp_path / form).stat().st_size}
    record = said("view", capsys, place, "--prompt", "abc", "--out", tmp_path / "page.html")
    assert record == {"path": str(tmp_path / "page.html"), "bytes": (tmp_path / "page.html").stat().st_size}


def test_what_is_listed_is_valid_too(place: Path, capsys: Any) -> None:
    assert "sparsify" in said("schema", capsys)["verbs"]
    assert said("schema", capsys, "trace") == schema_of("trace")
    assert said("recipes", capsys)["pretrained"]["purpose"]
    assert said("info", capsys, place)["models"][1]["gates"]["edges"]["bias"] == pytest.approx(-0.05)
    assert main(["schema", "sudoku"]) == 2
    assert "verb='sudoku' is not known" in capsys.readouterr().err


@pytest.mark.integration
def test_a_server_says_where_it_listens_in_one_line(place: Path) -> None:
    pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'gossamer[serve]'")
    command = [sys.executable, "-m", "gossamer", "serve", str(place), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        record = validated("serve", process.stdout.readline())
        process.kill()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", record["url"])


def test_standard_output_is_the_record_alone(place: Path) -> None:
    """Whatever transformers or a progress bar say goes to the other stream."""
    command = [sys.executable, "-m", "gossamer", "draw", str(place), "--prompt", "abc", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=place)
    assert json.loads(done.stdout)["files"] == ["figure.pdf"]
