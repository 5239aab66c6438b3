"""Sparsity-regularised finetuning: configuration, constraint, trainer, metrics, one process or many."""
