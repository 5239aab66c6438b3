"""From a folder to a running server: what it may listen on, and under which condition."""

from __future__ import annotations

import ipaddress
import secrets
from pathlib import Path

from ...errors import GossamerError, refuse
from .app import app
from .session import Limits, Session

LEAST_TOKEN = 16  # characters; what `--auth-token new` makes has 43


def run(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8642,
    token: str = "",
    start: str = "",
    limits: Limits | None = None,
) -> None:
    """Serve the models in `folder` until interrupted.

    Args:
        folder: holds base/, sparse/ and a tokenizer.
        host, port: where to listen; anything but loopback needs a token.
        token: of at least 16 characters; "new" makes one and prints it with the address.
        start: the prompt that is shown first.
        limits: see `Limits`.
    Raises: `GossamerError` for an address that needs a token, or if the extra `serve` is not installed.
    """
    import uvicorn
    from rich.console import Console

    token = checked_token(host, token)
    session = open_session(folder, limits)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if isinstance(session, GossamerError):
        console.print(f"gossamer: {session}", markup=False)
    query = f"?token={token}" if token else ""
    console.print(f"http://{host}:{port}/{query}  (Ctrl+C ends)", markup=False)
    uvicorn.run(
        app(session, token=token, start=start), host=host, port=port, log_level="warning", access_log=False
    )


def open_session(folder: Path, limits: Limits | None) -> Session | GossamerError:
    """The session of a folder, or the reason why there is none, which the page then says."""
    try:
        return Session.load(folder, limits)
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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
