"""Programs that begin as forks of a process that has imported everything: a start of seconds takes none.

For tests that need other processes (killed ones, ranks), and not for those of how a program starts.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from subprocess import CompletedProcess
from time import sleep
from typing import Any

from .processes import TESTS, environment

PROGRAMS = multiprocessing.get_context("forkserver")
PROGRAMS.set_forkserver_preload(
    ["accelerate", "peft", "torch.distributed.fsdp", "gossamer.cli", "gossamer.recipes.text"]
)

# How accelerate is asked to share one model between the ranks of `helpers.run_sharded`.
SHARDED = {
    "ACCELERATE_USE_CPU": "true",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
}


def run(words: list[str], ranks: int = 1, **named: str) -> CompletedProcess[str]:
    """`python WORDS`, which begin with -m, in `ranks` processes; what they wrote to both streams, together.

    Its return code is the first that is not 0; as `subprocess` has it, a signal's number below 0.
    """
    group = _group(ranks) if ranks > 1 else [{}]
    pipes = [PROGRAMS.Pipe(duplex=False) for _ in ("out", "err")]
    ends = [into for _, into in pipes]
    processes = [_started(words, environment(**place, **named), ends) for place in group]
    for into in ends:
        into.close()
    with ThreadPoolExecutor(len(pipes)) as readers:
        said = [readers.submit(_whole, out) for out, _ in pipes]
        codes = _ended(processes)
    return CompletedProcess(words, next(filter(None, codes), 0), *(one.result() for one in said))


def _group(ranks: int) -> list[dict[str, str]]:
    """The variables that a launcher sets for each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    common["LOCAL_WORLD_SIZE"] = str(ranks)
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def _started(words: list[str], names: dict[str, str], streams: list[Connection]) -> BaseProcess:
    assert words[0] == "-m", words
    process = PROGRAMS.Process(target=_program, args=(words[1:], names, streams))
    process.start()
    return process


def _whole(stream: Connection) -> str:
    """What is written to a pipe until all of its writers have closed it."""
    with open(stream.fileno(), encoding="utf-8", errors="replace", closefd=False) as text:
        return text.read()


def _ended(processes: list[BaseProcess]) -> list[int]:
    """Their return codes; once one has failed, those that go on are ended."""
    while any(one.is_alive() for one in processes) and not any(one.exitcode for one in processes):
        sleep(0.02)
    for one in processes:
        one.join(1.0)
    codes = [one.exitcode or 0 for one in processes]
    for one in processes:
        one.kill()
        one.join()
    return codes


def _program(words: list[str], names: dict[str, str], streams: list[Connection]) -> Any:
    """In the fork: become the program."""
    for number, stream in zip((1, 2), streams, strict=True):
        os.dup2(stream.fileno(), number)
        stream.close()
    os.environ.clear()
    os.environ.update(names)
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
