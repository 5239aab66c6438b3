"""Conversations as the text that a chat model reads: its tokenizer's template writes them out."""

from __future__ import annotations

from typing import Any

from ..errors import GossamerError, loading, refuse
from .examples import Chat


def chat_of(tokenizer: Any) -> Chat:
    """How a tokenizer writes a conversation out; one without a chat template refuses the first that it is given."""

    def written(turns: list[dict[str, str]], where: str) -> str:
        if not getattr(tokenizer, "chat_template", None):
            raise refuse(
                f"{where} holds a conversation, and the tokenizer has no chat template",
                "the tokenizer of a chat model",
                "set tokenizer.chat_template and save it, or name a column of texts with --column text=NAME",
            )
        expected = "turns in the order that the chat template of the tokenizer takes"
        with loading(
            f"the conversation of {where}", expected, "check its roles", GossamerError, done="written out"
        ):
            return str(tokenizer.apply_chat_template(turns, tokenize=False))

    return written
