"""`gossamer serve` as a process: clients that stall or leave, Ctrl+C, a port that is taken."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gossamer.cli import main
from gossamer.models.attach import attach
from gossamer.models.checkpoint import save, save_folder
from helpers import zoo
from helpers.letters import save_tokenizer

pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'gossamer[serve]'")

pytestmark = pytest.mark.integration
HALF = (
    b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    b'{"prompt'
)
QUESTION = b'{"prompt": "abc"}'
WHOLE = HALF.replace(b"99", str(len(QUESTION)).encode()).partition(b'{"prompt')[0] + QUESTION
# A model that is inside one long operation, and hears of nothing.
DEAF = """
import time
from gossamer.cli import run
from gossamer.viz.serve import session
session.trace_prompt = lambda *_, **__: time.sleep(600)
run()
"""


def command(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "gossamer", "serve", str(folder), "--port", str(port)]


@contextmanager
def serving(arguments: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server as a process, and its port."""
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = next(
            int(found[1]) for line in process.stderr if (found := re.match(r"http://.*:(\d+)/", line))
        )
        yield process, port
        process.kill()


def half(port: int) -> socket.socket:
    """A connection on which half a question was sent; the server has read it when it answers another one."""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(HALF)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as other:
        other.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in other.recv(4096)
    return client


def ended(process: subprocess.Popen[str]) -> tuple[float, str]:
    """(seconds that Ctrl+C took, what was printed since)."""
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    return time.monotonic() - begun, errors


def test_ctrl_c_ends_while_half_a_question_is_there_and_clients_that_left_leave_no_word(tmp_path):
    """The server has no model; it takes questions as one with a model does."""
    with serving(command(tmp_path, 0)) as (process, port):
        for _ in range(3):
            half(port).close()
        with half(port):
            seconds, errors = ended(process)
    assert seconds < 5
    assert (process.returncode, errors) == (0, "")


def test_ctrl_c_ends_while_a_model_computes_and_hears_of_nothing(tmp_path):
    save_folder(zoo.build("llama"), tmp_path / "base")
    gated = zoo.build("llama")
    attach(gated, bias=0.0)
    save(gated, tmp_path / "sparse")
    save_tokenizer(tmp_path / "sparse")
    deaf = [sys.executable, "-c", DEAF, *command(tmp_path, 0)[3:], "--max-requests", "1"]
    with (
        serving(deaf) as (process, port),
        socket.create_connection(("127.0.0.1", port), timeout=30) as client,
    ):
        client.sendall(WHOLE)
        # Until the first one is being answered. It stays connected: the end has to reach it.
        while b" 429 " not in answer(port):
            time.sleep(0.1)
        seconds, errors = ended(process)
        said = client.recv(4096)
    assert seconds < 5
    assert (process.returncode, errors) == (0, "")
    assert b" 503 " in said
    assert b"the server has ended" in said


def answer(port: int) -> bytes:
    """What one more question is answered; nothing where it is the one that the model works on."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as other, suppress(TimeoutError):
        other.sendall(WHOLE)
        return other.recv(4096)
    return b""


def test_a_taken_port_is_one_line_and_exit_code_2(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(command(tmp_path, port)[3:]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"127.0.0.1:{port} cannot be listened on" in line
