"""A prompt in a padded batch is the prompt alone: its edges, its answers, and what `generate` says, in every family."""

from __future__ import annotations

import pytest
import torch

from gossamer.circuits.intervene import PatchedModel
from gossamer.circuits.trace import trace
from gossamer.models.attach import attach
from helpers import zoo

LENGTHS, LONGEST = (9, 5, 7, 3), 9
TEXT = [*zoo.DECODERS, *zoo.ENCODERS]


def padded(model: object, side: str, pad: int) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Prompts alone, and together with their mask."""
    generator = torch.Generator().manual_seed(3)
    alone = [torch.randint(4, 90, (n,), generator=generator) for n in LENGTHS]
    fill = [(LONGEST - n, 0) if side == "left" else (0, LONGEST - n) for n in LENGTHS]
    ids, mask = (
        torch.stack([torch.nn.functional.pad(x, f, value=v) for x, f in zip(rows, fill, strict=True)])
        for rows, v in ((alone, pad), ([torch.ones_like(x) for x in alone], 0))
    )
    return alone, ids, mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", TEXT)
def test_each_prompt_is_traced_as_it_is_alone(family: str, side: str) -> None:
    model = zoo.build(family)
    attach(model, bias=0.25)
    alone, ids, mask = padded(model, side, zoo.pad_of(model))
    together = trace(model, ids, attention_mask=mask)
    for row, prompt in enumerate(alone):
        one, shift = trace(model, prompt[None]), (LONGEST - len(prompt)) * (side == "left")
        mine = together.prompt == row
        for name, by in (("layer", 0), ("head", 0), ("query", shift), ("key", shift)):
            assert (getattr(together, name)[mine] - by).tolist() == getattr(one, name).tolist()
        torch.testing.assert_close(
            torch.tensor(together.weight[mine]), torch.tensor(one.weight), rtol=1e-4, atol=1e-5
        )
        assert together.answers[row][shift : shift + len(prompt)] == one.answers[0]
        assert together.visible[row] == one.visible[0]


@pytest.mark.parametrize("family", zoo.DECODERS)
def test_the_last_answer_is_what_generate_says(family: str) -> None:
    model = zoo.build(family)
    attach(model, bias=0.25)
    _, ids, mask = padded(model, "left", zoo.pad_of(model))
    model.generation_config.eos_token_id = None
    said = model.generate(ids, attention_mask=mask, max_new_tokens=1, do_sample=False)[:, -1]
    circuit = trace(model, ids, attention_mask=mask)
    assert [answers[-1] for answers in circuit.answers] == [str(i) for i in said.tolist()]
    with PatchedModel(model, circuit, ids, mask).ready() as patched:
        assert patched.run(patched.all_rows)[:, -1].tolist() == said.tolist()
