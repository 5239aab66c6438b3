"""The app over HTTP: one page, one question, one sign of life. No prompt is stored or logged.

    GET  /          the page, or what is wrong with the model
    POST /api/look  {prompt, cuts} -> circuits and next tokens
    GET  /health    {"ok": true}

Where a token is required, it comes as `Authorization: Bearer`, or once in the address, `/?token=...`, which
the page then sends with every question. Other web pages cannot ask: a question must be JSON, and of the
page's own origin.
"""

from __future__ import annotations

import asyncio
import hmac
import html
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse

from ...errors import GossamerError
from ..report.page import bare_page
from ..viewer.page import asset, page
from .session import Session

LARGEST_BODY = 4_000_000  # bytes; a cut edge is about twelve, so this is far beyond any use
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Refusal(Exception):
    """A request that is turned away: status and one line."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def app(session: Session | GossamerError, *, token: str = "", start: str = "") -> FastAPI:
    """The app of a session, or of the reason why there is none.

    Args:
        session: ready to be asked; an error becomes a page that says it.
        token: what a request must know; empty for nothing.
        start: the prompt that is shown first.
    """
    made = FastAPI(title="gossamer", docs_url=None, redoc_url=None, openapi_url=None)
    guard = RequestGuard(session, token)

    @made.middleware("http")
    async def guarded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            guard.admit(request)
            response = await call_next(request)
        except Refusal as refusal:
            response = JSONResponse({"error": str(refusal)}, status_code=refusal.status)
        response.headers.update(SAFE)
        return response

    @made.get("/health")
    async def health() -> dict[str, bool]:
        return {"ok": isinstance(session, Session)}

    @made.get("/", response_class=HTMLResponse)
    async def front() -> HTMLResponse:
        if not isinstance(session, Session):
            return HTMLResponse(failure_page(session), status_code=503)
        script = asset("serve.js", __name__.rpartition(".")[0])
        return HTMLResponse(
            page(session.page_data(start), title="Attention circuits", connect="'self'", start=script)
        )

    @made.post("/api/look")
    async def look(request: Request) -> JSONResponse:
        return JSONResponse(await guard.look(await body(request)))

    return made


class RequestGuard:
    """Who may ask, and how many at a time."""

    def __init__(self, session: Session | GossamerError, token: str) -> None:
        self.session, self.token = session, token
        self.present = 0
        self.turn = asyncio.Lock()  # one question at a time: the models' gates are shared state

    def admit(self, request: Request) -> None:
        """Raise unless the request knows the token and comes from our own page."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = given or request.query_params.get("token", "")
        if (
            self.token
            and request.url.path != "/health"
            and not hmac.compare_digest(given.encode(), self.token.encode())
        ):
            raise Refusal(401, "this server asks for its token: open the address that it printed")
        origin = request.headers.get("origin")
        if request.method == "POST" and origin and urlsplit(origin).netloc != request.headers.get("host"):
            raise Refusal(403, "another page cannot ask")

    async def look(self, question: Any) -> dict[str, Any]:
        """Answer one question when it is its turn."""
        if not isinstance(self.session, Session):
            raise Refusal(503, str(self.session))
        prompt, cuts = read_question(question)
        if self.present >= self.session.limits.waiting:
            raise Refusal(429, "busy: too many prompts at one time; try again in a moment")
        self.present += 1
        try:
            async with self.turn:
                return await run_in_threadpool(self.session.answer, prompt, cuts)
        except GossamerError as error:
            raise Refusal(400, str(error)) from error
        except (RuntimeError, MemoryError, IndexError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Refusal(500, f"the model failed: {line[:300]}") from error
        finally:
            self.present -= 1


async def body(request: Request) -> Any:
    """The request's JSON, no larger than it may be."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise Refusal(415, "a question is application/json")
    size = 0
    parts = []
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BODY:
            raise Refusal(413, f"a question is at most {LARGEST_BODY:,} bytes")
        parts.append(part)
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "a question is JSON") from error


def read_question(question: Any) -> tuple[str, list[list[tuple[int, ...]]]]:
    """(prompt, cuts per model), or a refusal that says what is expected."""
    expected = Refusal(400, "a question is {prompt: text, cuts: [[[layer, head, query, key], ...], ...]}")
    if not isinstance(question, dict) or not isinstance(question.get("prompt"), str):
        raise expected
    cuts = question.get("cuts", [[], []])
    if not (isinstance(cuts, list) and len(cuts) == 2 and all(isinstance(part, list) for part in cuts)):
        raise expected
    if not all(isinstance(cut, list) and len(cut) in (2, 4) for part in cuts for cut in part):
        raise expected
    if not all(type(x) is int for part in cuts for cut in part for x in cut):
        raise expected
    return question["prompt"], [[tuple(cut) for cut in part] for part in cuts]


def failure_page(error: GossamerError) -> str:
    """A page that says why there is no model."""
    words = f"<h2>The model could not be loaded</h2><p>{html.escape(str(error))}</p>"
    words += "<p>Mend that and start <code>gossamer serve</code> again.</p>"
    return bare_page("gossamer serve", words)
