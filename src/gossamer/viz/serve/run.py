"""From a folder to a running server: what it may listen on, and under which condition."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from rich.console import Console

from ...data.prompts import require_text
from ...errors import GossamerError, refuse
from .app import app
from .guard import RequestGuard, is_loopback
from .session import Limits, Session

LEAST_TOKEN = 16  # characters; what `--auth-token new` makes has 43
END_SECONDS = 2  # in which answers that are on their way may leave after Ctrl+C
LAST_SECONDS = 3.0  # after Ctrl+C, whatever is still running
INTERRUPTED = 130


def run(
    folder: Path,
    *,
    models: tuple[Path | str, Path] | None = None,
    host: str = "127.0.0.1",
    port: int = 8642,
    token: str = "",
    start: str = "",
    limits: Limits | None = None,
    as_json: bool = False,
) -> None:
    """Serve the models in `folder` until interrupted.

    Args:
        folder: holds base/, sparse/ and a tokenizer.
        models: the base and the sparse model, where they lie elsewhere.
        host, port: where to listen, 0 for a free port; anything but loopback needs a token.
        token: of at least 16 characters; "new" makes one and prints it with the address.
        start: the prompt that is shown first.
        limits: see `Limits`.
        as_json: also print the address on standard output, as {"url": ...} on one line.
    Raises: `GossamerError` for an address that needs a token or that cannot be listened on.
    """
    token = checked_token(host, token)
    require_text(start)
    with listening(host, port) as listener:
        session = open_session(folder, limits, models)
        _serve(listener, host, token, start, session, as_json)


def _serve(
    listener: socket.socket,
    host: str,
    token: str,
    start: str,
    session: Session | GossamerError,
    as_json: bool,
) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if isinstance(session, GossamerError):
        console.print(f"gossamer: {session}", markup=False)
    query = f"?token={token}" if token else ""
    place = f"[{host.strip('[]')}]" if ":" in host else host
    address = f"http://{place}:{listener.getsockname()[1]}/{query}"
    console.print(f"{address}  (Ctrl+C ends)", markup=False)
    if as_json:
        sys.stdout.write(json.dumps({"url": address}) + "\n")
        sys.stdout.flush()
    made = app(session, host=host, token=token, start=start)
    config = uvicorn.Config(
        made, log_level="warning", access_log=False, timeout_graceful_shutdown=END_SECONDS
    )
    try:
        EndingServer(config, made.state.guard).run(sockets=[listener])
    except KeyboardInterrupt:
        return  # it ends as it was told to


class EndingServer(uvicorn.Server):
    """A server that ends within `LAST_SECONDS` of being told to, whoever is in the middle of a question."""

    def __init__(self, config: uvicorn.Config, guard: RequestGuard) -> None:
        super().__init__(config)
        self.guard = guard
        self.loop: asyncio.AbstractEventLoop | None = None
        self.last = threading.Timer(LAST_SECONDS, os._exit, (INTERRUPTED,))  # nothing is being written
        self.last.daemon = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to end."""
        self.loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to end, and return when nothing is left."""
        try:
            super().run(sockets)
        finally:
            self.last.cancel()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End questions that are half here or half answered; a model that does not hear of it is left behind."""
        super().handle_exit(sig, frame)
        if self.loop is not None and not self.guard.ended.is_set():
            self.last.start()
            self.loop.call_soon_threadsafe(self.guard.end)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; `GossamerError` for a port that is taken and a host that is not this machine's."""
    try:
        family, *_, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise refuse(
            f"{host}:{port} cannot be listened on ({reason})",
            "an address of this machine and a free port",
            "pass another --port, or 0 for a free one",
        ) from error


def open_session(
    folder: Path, limits: Limits | None, models: tuple[Path | str, Path] | None = None
) -> Session | GossamerError:
    """The session of a folder, or the reason why there is none, which the page then says."""
    try:
        return Session.load(folder, limits, models)
    except GossamerError as error:
        return error


def checked_token(host: str, token: str) -> str:
    """The token to ask for: none on loopback unless one is given, else one that is long enough."""
    if token == "new":
        return secrets.token_urlsafe(32)
    if token and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable()):
        raise refuse(
            f"a token of {len(token)} characters",
            f"{LEAST_TOKEN} or more, ASCII",
            "use --auth-token new",
        )
    if not token and not is_loopback(host):
        raise refuse(
            f"host {host} without a token",
            "loopback, or a token",
            "add --auth-token new, or use 127.0.0.1",
        )
    return token
