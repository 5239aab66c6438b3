"""What things cost, side by side: each module is a program, `python -m benchmarks.speed.attention`."""

from __future__ import annotations

from pathlib import Path

RESULTS = Path(__file__).parent / "results"
