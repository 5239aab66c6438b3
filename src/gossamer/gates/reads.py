"""What a gate may read; apart from the gates, since settings name it and load no torch."""

from __future__ import annotations

# The name, and the share of its row's log-sum-exp that a gate takes off the logit for that.
READS = {"logit": 0.0, "weight": 1.0}
MAGNITUDE = "magnitude"  # of a weight, for gates on weights alone
CONTRIBUTION = "contribution"  # of a head or a neuron to the residual stream, measured (`contribution.py`)
