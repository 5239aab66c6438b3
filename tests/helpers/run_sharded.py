"""`gossamer` under an accelerate that shards on CPUs as it does on its accelerators.

accelerate 1.15 takes the request for FSDP and runs plain data parallel on CPUs (`AcceleratorState.__init__`), which
gossamer refuses. What is changed here is that list of devices alone: the sharding, the collectives on gloo and the
checkpoints are the real ones. Goes when accelerate shards on CPUs by itself. IMPORT names a module to import first, for
the kinds of gates that it defines.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

begin = AcceleratorState.__init__


def sharding(self: Any, *given: Any, fsdp_plugin: Any = None, **more: Any) -> None:
    """The state as accelerate makes it, with FSDP where it was asked for."""
    begin(self, *given, fsdp_plugin=fsdp_plugin, **more)
    plugin = getattr(self, "fsdp_plugin", None) or fsdp_plugin
    if plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugin


if __name__ == "__main__":
    AcceleratorState.__init__ = sharding  # type: ignore[method-assign]
    from gossamer.cli import main

    if "IMPORT" in os.environ:
        importlib.import_module(os.environ["IMPORT"])
    code = main(sys.argv[1:])
    sys.exit(
        "gossamer ended inside its process group"
        if code == 0 and torch.distributed.is_initialized()
        else code
    )
