"""How fast patching is: attribution of all edges against one forward and backward, and exact edges per
second.

    python -m benchmarks.speed.patching [--layers 12 --heads 12 --width 768] [--prompts 4 --length 16] [--exact 64]

Random weights; one thread. The goal is attribution within 3 x of one forward and backward of the same batch,
in which the backward reaches the first block's input, as attribution's does, and no parameter has a gradient.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from statistics import median

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.speed import RESULTS
from gossamer.circuits.components.component_model import components_of
from gossamer.circuits.components.one_edge import OneEdgeEach
from gossamer.circuits.components.run import writer_outputs
from gossamer.circuits.components.scores import score_edges
from gossamer.data.pairs import Batch
from gossamer.files import write_json


def timed(work: Callable[[], object], rounds: int) -> float:
    """Median CPU seconds of this process, after one round that is not counted: a busy machine changes little."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return median(seconds)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"layers": 12, "heads": 12, "width": 768, "prompts": 4, "length": 16, "exact": 64, "rounds": 3}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(
        n_embd=given.width, n_layer=given.layers, n_head=given.heads, resid_pdrop=0.0, attn_pdrop=0.0,
        embd_pdrop=0.0,
    )).eval().requires_grad_(False)  # fmt: skip
    clean, corrupt = torch.randint(0, 50257, (2, given.prompts, given.length)).unbind(0)
    right, wrong = (torch.zeros(given.prompts, 50257, dtype=torch.bool) for _ in range(2))
    right[:, 1], wrong[:, 2] = True, True
    batch = Batch(clean, corrupt, right, wrong, "logit_difference", "random", torch.zeros(given.prompts))
    components = components_of(model)

    def forward_backward() -> None:
        inputs = model.transformer.wte(clean).requires_grad_()
        value = batch.measure(model(inputs_embeds=inputs).logits).sum()
        torch.autograd.grad(value, inputs)

    pairs = components.graph.exists.nonzero()[:: max(1, components.graph.n_edges // given.exact)][
        : given.exact
    ]
    change = writer_outputs(components, corrupt)[0] - writer_outputs(components, clean)[0]

    @torch.no_grad()
    def exact() -> None:
        for part in pairs.split(16):
            OneEdgeEach(components, part, change).run(clean.repeat(len(part), 1))

    once = timed(forward_backward, given.rounds)
    all_edges = timed(lambda: score_edges(components, [batch], method="eap"), given.rounds)
    some = timed(exact, given.rounds)
    record = {
        "settings": vars(given), "edges": components.graph.n_edges, "forward_backward_s": once,
        "attribution_s": all_edges,
        "ratio": all_edges / once, "exact_edge_prompts_per_s": len(pairs) * given.prompts / some,
        "exact_edges_per_s": len(pairs) / some, "torch": torch.__version__, "machine": platform.machine(),
    }  # fmt: skip
    print(json.dumps(record, indent=2))
    write_json(RESULTS / f"patching_{platform.machine()}.json", record)


if __name__ == "__main__":
    main()
