"""Who may ask the server, for how long, and how many at a time.

Another web page cannot ask: a question must be JSON, of the page's own origin, and for a host that is ours. A page
whose name is pointed at this machine after it was loaded (DNS rebinding) has one origin with us, but not our host.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from ...errors import GossamerError
from .session import Cut, Session

BODY_SECONDS = 10.0  # for a question to arrive; the page's are a few kilobytes


class Refusal(Exception):
    """A request that is turned away: status and one line."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class RequestGuard:
    """Who may ask, for how long, and how many at a time.

    Args:
        session: what is asked, or why there is none.
        host: where the server listens.
        token: what a request must know; empty for nothing.
    """

    def __init__(self, session: Session | GossamerError, host: str, token: str) -> None:
        self.session, self.host, self.token = session, host, token
        self.present = 0
        self.ended = threading.Event()
        self.pending: set[asyncio.Timeout] = set()  # what is arriving, and what a model works on

    def admit(self, request: Request) -> None:
        """Raise unless the request is for our host, knows the token and comes from our own page."""
        host = request.headers.get("host", "")
        if not is_ours(host, self.host):
            line = f"this server is not {host[:100]!a}: open the address that it printed, or start it with --host"
            raise Refusal(421, line)
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = given or request.query_params.get("token", "")
        if (
            self.token
            and request.url.path != "/health"
            and not hmac.compare_digest(given.encode(), self.token.encode())
        ):
            raise Refusal(401, "this server asks for its token: open the address that it printed")
        origin = request.headers.get("origin")
        if request.method == "POST" and origin and urlsplit(origin).netloc != host:
            raise Refusal(403, "another page cannot ask")

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """Refuse what has not arrived within `BODY_SECONDS`, or when the server ends."""
        try:
            async with self._until_the_end(BODY_SECONDS):
                yield
        except TimeoutError as late:
            raise Refusal(408, f"a question arrives within {BODY_SECONDS:g} s") from late

    @asynccontextmanager
    async def _until_the_end(self, seconds: float | None) -> AsyncIterator[None]:
        """Refuse what is not done when the server ends; `TimeoutError` for what takes longer than `seconds`."""
        try:
            async with asyncio.timeout(0 if self.ended.is_set() else seconds) as limit:
                self.pending.add(limit)
                try:
                    yield
                finally:
                    self.pending.discard(limit)
        except TimeoutError as late:
            if self.ended.is_set():
                raise Refusal(503, "the server has ended") from late
            raise

    async def look(self, prompt: str, cuts: list[list[Cut]]) -> dict[str, Any]:
        """Answer one question, in a thread of its own."""
        if not isinstance(self.session, Session):
            raise Refusal(503, str(self.session))
        if self.present >= self.session.limits.waiting:
            raise Refusal(429, "busy: too many prompts at one time; try again in a moment")
        self.present += 1
        try:
            # A model that does not hear of the end is left behind in its thread: it would hold up the others.
            async with self._until_the_end(None):
                return await run_in_threadpool(self._answer, self.session, prompt, cuts)
        except GossamerError as error:
            raise Refusal(400, str(error)) from error
        except (RuntimeError, MemoryError, IndexError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Refusal(500, f"the model failed: {line[:300]}") from error
        finally:
            self.present -= 1

    def _answer(self, session: Session, prompt: str, cuts: Sequence[Sequence[Cut]]) -> dict[str, Any]:
        limit = session.limits.seconds
        end = time.monotonic() + limit

        def check() -> None:
            if self.ended.is_set():
                raise Refusal(503, "the server has ended")
            if time.monotonic() > end:
                raise Refusal(503, f"not done within {limit:g} s: try a shorter prompt, or again in a moment")

        return session.answer(prompt, cuts, check)

    def end(self) -> None:
        """Stop what is being received and answered; call it in the thread of the event loop."""
        self.ended.set()
        now = asyncio.get_running_loop().time()
        for limit in self.pending:
            limit.reschedule(now)


def is_ours(header: str, host: str) -> bool:
    """Whether a Host header names loopback or the host that the server was told to listen on.

    A server on all addresses (0.0.0.0, ::) is reached by any of them, but by no name: a name can be pointed elsewhere.
    """
    try:
        name = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    if is_loopback(name) or name == host.strip("[]").lower():
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified and bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
