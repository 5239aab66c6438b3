"""What benchmarks share: records, the machine, fair timing, plots."""
