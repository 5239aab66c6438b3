"""Keep the loading bars of transformers out of our own output."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as hf_logging


class quiet:
    """Keep transformers' own progress lines out of ours inside a `with` block; warnings of ours still show.

    A block inside another one leaves it as quiet as it was.
    """

    def __enter__(self) -> None:
        self.level, self.bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        hf_logging.set_verbosity(self.level)
        if self.bars:
            hf_logging.enable_progress_bar()


class _OtherThanPadding(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "passing in an `attention_mask`" not in record.getMessage()


@contextmanager
def without_padding_advice() -> Iterator[None]:
    """Leave out that no attention mask was given: rows of packed text may end in a token that is also used to pad."""
    logger, other = hf_logging.get_logger("transformers.modeling_utils"), _OtherThanPadding()
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)
