"""Progress bars of transformers: off inside a block, and afterwards as before."""

from __future__ import annotations

from transformers.utils import logging as hf_logging

from gossamer.models.quiet import quiet


def test_a_block_inside_another_leaves_it_quiet() -> None:
    before = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    with quiet():
        inside = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
        with quiet():
            pass
        assert (hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()) == inside
        assert not inside[0]
    assert (hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()) == before
