"""The machine that a number was measured on."""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch


def device_name(device: str) -> str:
    """The device in words, for people and for file names."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    found = (
        re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        if (platform.system() == "Linux")
        else None
    )
    return found.group(1) if found else platform.machine()


def circumstances(device: str, dtype: torch.dtype) -> dict[str, Any]:
    """What a number is worth nothing without."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "device": device_name(device),
        "clock": "wall" if device == "cuda" else "processor time",
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
        "date": datetime.date.today().isoformat(),
    }
