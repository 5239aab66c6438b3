"""Marks by folder and family; and, set before anything imports triton: without CUDA it runs in its interpreter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

HERE = Path(__file__).parent
INTEGRATION = ("integration", "browser", "cli", "recipes", "benchmarks")
QUICK = ("gpt2", "llama", "bert")  # the families that `make test-fast` tries


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs whole commands and jobs, several processes or a browser is an integration test.

    So is a test with a parameter `family` beyond `QUICK`, or, where it has none of those, beyond its first.
    """
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


def family_of(item: pytest.Item) -> str:
    """The family of the zoo that a test is about; empty where it names none."""
    callspec = getattr(item, "callspec", None)
    return "" if callspec is None else str(callspec.params.get("family", ""))


def case_of(item: pytest.Item) -> tuple[Path, str]:
    """The test that an item is a case of."""
    return item.path, getattr(item, "originalname", item.name)
