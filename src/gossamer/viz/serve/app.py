"""The app over HTTP: one page, one question, one sign of life. No prompt is stored or logged.

    GET  /          the page, or what is wrong with the model
    POST /api/look  {prompt, cuts} -> circuits and next tokens
    GET  /health    {"ok": true}

Where a token is required, it comes as `Authorization: Bearer`, or once in the address, `/?token=...`, which
the page then sends with every question. `guard.py` says who may ask at all.
"""

from __future__ import annotations

import html
import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.requests import ClientDisconnect

from ...errors import GossamerError
from ..report.page import bare_page
from ..viewer import left_of
from ..viewer.page import asset, page
from .guard import Refusal, RequestGuard
from .session import Session

LARGEST_BODY = 4_000_000  # bytes; a cut edge is about twelve, so this is far beyond any use
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


def app(
    session: Session | GossamerError, *, host: str = "127.0.0.1", token: str = "", start: str = ""
) -> FastAPI:
    """The app of a session, or of the reason why there is none; `app(...).state.guard` ends what it is doing.

    Args:
        session: ready to be asked; an error becomes a page that says it.
        host: where it listens; requests for other hosts are refused.
        token: what a request must know; empty for nothing.
        start: the prompt that is shown first.
    """
    made = FastAPI(title="gossamer", docs_url=None, redoc_url=None, openapi_url=None)
    guard = made.state.guard = RequestGuard(session, host, token)

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
        data = session.page_data(start)
        text = page(data, title="Attention circuits", left=left_of(data), connect="'self'", start=script)
        return HTMLResponse(text)

    @made.post("/api/look")
    async def look(request: Request) -> JSONResponse:
        async with guard.receiving():
            question = await body(request)
        return JSONResponse(await guard.look(*read_question(question)))

    return made


async def body(request: Request) -> Any:
    """The request's JSON, no larger than it may be."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise Refusal(415, "a question is application/json")
    size = 0
    parts = []
    try:
        async for part in request.stream():
            size += len(part)
            if size > LARGEST_BODY:
                raise Refusal(413, f"a question is at most {LARGEST_BODY:,} bytes")
            parts.append(part)
    except ClientDisconnect as left:
        raise Refusal(400, "the question broke off") from left
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
