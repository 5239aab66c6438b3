"""What benchmarks share: records, plain training, the machine, fair timing, plots."""
