"""Marks by folder; and, set before anything imports triton: without a CUDA device it runs in its interpreter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

HERE = Path(__file__).parent
INTEGRATION = ("integration", "browser")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs whole commands, several processes or a browser is an integration test."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.path.relative_to(HERE).parts[0] in INTEGRATION:
            item.add_marker(pytest.mark.integration)
