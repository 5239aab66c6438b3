"""A tokenizer of one token per letter, for tiny models."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

LETTERS = "\n abcdefghijklmnopqrstuvwxyz.,"


def tokenizer(*, pairs: bool = False) -> PreTrainedTokenizerFast:
    """One token per letter; with `pairs` framed as BERT frames a text, or two."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: i for i, token in enumerate([*special, *LETTERS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[PAD]"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    words.decoder = decoders.Fuse()  # type: ignore[assignment]
    if pairs:
        ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
        words.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends
        )  # type: ignore[assignment]
    names = dict(zip(("pad_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    inputs = ["input_ids", *["token_type_ids"] * pairs, "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="[SEP]", model_input_names=inputs, **names
    )


def save_tokenizer(folder: Path) -> None:
    """The plain one."""
    tokenizer().save_pretrained(folder)
