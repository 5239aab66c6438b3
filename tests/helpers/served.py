"""A tokenizer of single bytes and two tiny models, for the server and its page."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from helpers.zoo import tiny


class Letters:
    """A tokenizer of single bytes."""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode("latin-1")


def models() -> list[PreTrainedModel]:
    made = [tiny(seed=seed, scale=1.0, vocab_size=256, n_positions=64, n_layer=2) for seed in range(2)]
    with torch.no_grad():
        for model in made:
            for block in model.transformer.h:
                block.attn.c_attn.weight.mul_(40)
    return made
