"""What the frontier is measured on: the standard library's text, a tokenizer and a small GPT-2 trained on it.

Everything is made once under a work folder and read from there afterwards; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.lib.training import train_on_rows
from gossamer.data.sequences import TensorRows
from gossamer.data.text import Corpus, as_rows, packed

LENGTH = 128
VOCABULARY = 1024
HELD_OUT_ROWS = 256  # 32,768 tokens: a standard error of about 0.02 nats on the loss, 0.001 on a paired gap
CORPUS = Corpus("stdlib", held_out_share=0.05, seed=0)
END = "<|endoftext|>"


class Data(NamedTuple):
    """Rows to train on and rows to report on, from different files."""

    train: TensorRows
    held_out: TensorRows
    digest: str  # of the held-out tokens, so that two machines can tell whether they measured the same


def tokenizer(work: Path) -> PreTrainedTokenizerFast:
    """The BPE tokenizer, trained on the training documents alone."""
    path = work / "tokenizer"
    if path.is_dir():
        return PreTrainedTokenizerFast.from_pretrained(path)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet)
    bpe.train_from_iterator(CORPUS.train(), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END)
    fast.save_pretrained(path)
    return fast


def data(work: Path) -> Data:
    """Training and held-out rows; the held-out ones are a seeded choice over all held-out files."""
    path = work / "rows.pt"
    if not path.is_file():
        words = tokenizer(work)
        rows = {part: torch.tensor(list(packed(getattr(CORPUS, part)(), words, LENGTH)), dtype=torch.int16)
                for part in ("train", "held_out")}  # fmt: skip
        torch.save(rows, path)
    rows = torch.load(path)
    order = torch.randperm(len(rows["held_out"]), generator=torch.Generator().manual_seed(0))[:HELD_OUT_ROWS]
    held_out = rows["held_out"][order].long()
    train = rows["train"].long()
    digest = hashlib.blake2b(held_out.numpy().tobytes(), digest_size=8).hexdigest()
    return Data(
        TensorRows(input_ids=train, labels=train), as_rows(held_out.tolist(), mask_token=None, seed=0), digest
    )


def model_config() -> GPT2Config:
    """4 layers, 4 heads, 128 wide, no dropout: 0.94 million parameters."""
    return GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=128, n_layer=4, n_head=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip


def base_model(work: Path, steps: int) -> Any:
    """The dense model, trained for `steps` steps of 16 x 128 tokens."""
    path = work / f"base-{steps}"
    if not path.is_dir():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(model_config())
        train_dense(model, data(work).train, steps)
        model.save_pretrained(path)
    return AutoModelForCausalLM.from_pretrained(path)


def train_dense(model: Any, rows: TensorRows, steps: int, *, batch: int = 16, peak: float = 3e-3) -> None:
    """Plain next-token training: AdamW, 100 warm-up steps, linear decay."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.1)
    train_on_rows(
        model, lambda ids: model(input_ids=ids, labels=ids).loss, rows.columns["input_ids"], optimizer,
        steps=steps, batch=batch, warmup=100, seed=1, say_every=100,
    )  # fmt: skip
