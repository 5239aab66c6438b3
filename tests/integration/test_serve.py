"""`gossamer serve` as a process: clients that stall or leave, Ctrl+C, a port that is taken."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="no uvicorn: pip install 'gossamer[serve]'")

pytestmark = pytest.mark.integration
HALF = (
    b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    b'{"prompt'
)


def command(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "gossamer", "serve", str(folder), "--port", str(port)]


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server without a model, which takes questions as one with a model does, and its port."""
    with subprocess.Popen(command(tmp_path, 0), stderr=subprocess.PIPE, text=True) as process:
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


def test_ctrl_c_ends_while_half_a_question_is_there(server):
    process, port = server
    with half(port):
        seconds, errors = ended(process)
    assert seconds < 5
    assert (process.returncode, errors) == (0, "")


def test_a_client_that_leaves_in_mid_question_leaves_no_word(server):
    process, port = server
    for _ in range(3):
        half(port).close()
    half(port).close()
    seconds, errors = ended(process)
    assert seconds < 5
    assert (process.returncode, errors) == (0, "")


def test_a_taken_port_is_one_line_and_exit_code_2(server, tmp_path):
    _, port = server
    done = subprocess.run(command(tmp_path, port), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
