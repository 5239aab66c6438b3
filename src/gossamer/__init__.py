"""Finetune a transformer until only a fine web of its attention is left, and read what the web computes."""
