"""Tasks with a known truth: what to feed a model, what it should answer, and which edges the answer needs."""
