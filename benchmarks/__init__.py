"""Benchmarks: what things cost (speed/), what comes out of whole experiments (experiments/), what both use (lib/)."""
