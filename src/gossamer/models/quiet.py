"""Keep the loading bars of transformers out of our own output."""

from __future__ import annotations

from transformers.utils import logging as hf_logging


class quiet:
    """Keep transformers' own progress lines out of ours inside a `with` block; warnings of ours still show."""

    def __enter__(self) -> None:
        self.level = hf_logging.get_verbosity()
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        hf_logging.set_verbosity(self.level)
        hf_logging.enable_progress_bar()
