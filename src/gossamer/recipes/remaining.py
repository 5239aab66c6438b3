"""A report with what is left of a model beside what was measured of it."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..models.remaining import remaining
from ..models.run_report import OpenUnits, RunReport


def with_remaining(report: RunReport, model: nn.Module) -> RunReport:
    """The report with the units, parameters, multiply-adds and bytes that are left, counted on the whole model."""
    found = remaining(model)
    static = {kind: OpenUnits(left.per_group, of_layer=left.of_layer) for kind, left in found.units.items()}
    return replace(report, gates=report.gates | static, sizes=found.as_record())
