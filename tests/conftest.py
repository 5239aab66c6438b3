"""Marks by folder and family; and, set before anything imports triton: without CUDA it runs in its interpreter."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

HERE = Path(__file__).parent
# What takes longest, longest first: `--dist loadfile` deals out files in this order, so that none ends with a long one.
LONG = (
    "docs/test_notebooks.py",
    "integration/test_demo.py",
    "docs/test_blocks.py",
    "browser/test_site.py",
    "integration/test_distributed.py",
    "integration/test_killed.py",
    "integration/test_tries.py",
    "integration/test_cli.py",
    "integration/test_sparsify_cli.py",
    "recipes/test_shrink.py",
    "gates/test_triton_kernel.py",
    "browser/test_any_page.py",
    "integration/test_serve.py",
    "integration/test_resume.py",
    "integration/test_tasks_cli.py",
    "browser/test_addition_page.py",
    "integration/test_wheel.py",
    "gates/test_new_kind.py",
    "models/test_compiled.py",
    "training/test_heads.py",
    "cli/test_circuit_verbs.py",
    "cli/test_json.py",
    "models/test_hub.py",
    "training/test_start.py",
    "gates/test_attention_noise.py",
)
assert all((HERE / name).is_file() for name in LONG), "a file in LONG has another name now"
INTEGRATION = ("integration", "browser", "cli", "recipes", "benchmarks")
QUICK = ("gpt2", "llama", "bert")  # the families that `make test-fast` tries


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first; what runs whole commands and jobs, several processes or a browser is an integration test.

    So is a test with a parameter `family` beyond `QUICK`, or, where it has none of those, beyond its first.
    """
    items.sort(key=lambda item: turn_of(item.path))
    families: dict[tuple[Path, str], list[str]] = {}
    for item in items:
        if family := family_of(item):
            families.setdefault(case_of(item), []).append(family)
    for item in items:
        folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        tried = families.get(case_of(item), [""])
        quick = set(tried) & set(QUICK) or {tried[0]}
        if folder in INTEGRATION or family_of(item) not in quick:
            item.add_marker(pytest.mark.integration)


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later garbage collection: each Trainer asks for one, which took 0.4 s."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """What ends with the process may be collected again: triton complains where it is not."""
    gc.unfreeze()


def turn_of(path: Path) -> int:
    """When the tests of a file run: those in `LONG` first, then all others as they are found."""
    name = path.relative_to(HERE).as_posix() if path.is_relative_to(HERE) else ""
    return LONG.index(name) if name in LONG else len(LONG)


def family_of(item: pytest.Item) -> str:
    """The family of the zoo that a test is about; empty where it names none."""
    callspec = getattr(item, "callspec", None)
    return "" if callspec is None else str(callspec.params.get("family", ""))


def case_of(item: pytest.Item) -> tuple[Path, str]:
    """The test that an item is a case of."""
    return item.path, getattr(item, "originalname", item.name)
