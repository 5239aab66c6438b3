"""The server: what it answers, whom it turns away, and what it says when the model fails."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gossamer.circuits.trace import trace
from gossamer.errors import GossamerError, refuse
from gossamer.models.attach import attach, gates_of
from helpers.served import Letters, models

testclient = pytest.importorskip("fastapi.testclient", reason="no fastapi: pip install 'gossamer[serve]'")

from gossamer.viz.serve import guard  # noqa: E402
from gossamer.viz.serve.app import app  # noqa: E402
from gossamer.viz.serve.guard import is_loopback, is_ours  # noqa: E402
from gossamer.viz.serve.run import checked_token, listening  # noqa: E402
from gossamer.viz.serve.session import Limits, Session  # noqa: E402

TOKEN = "a-token-of-enough-characters"


@pytest.fixture(scope="module")
def session() -> Session:
    base, sparse = models()
    attach(sparse, bias=-0.2, check=False)
    return Session(base, sparse, Letters(), Limits(tokens=32, characters=40, waiting=2, threshold=0.0))  # type: ignore[arg-type]


@pytest.fixture
def client(session):
    with visitor(app(session, start="hello")) as made:
        yield made


def visitor(made: Any) -> Any:
    """A client whose address is ours."""
    return testclient.TestClient(made, base_url="http://localhost")


def ask(client, prompt: Any = "hello", cuts: Any = None, **options: Any):
    question = {"prompt": prompt} | ({} if cuts is None else {"cuts": cuts})
    return client.post("/api/look", json=question, **options)


def numbers(packed) -> np.ndarray:
    kinds = {"u1": "<u1", "u2": "<u2", "u4": "<u4"}
    return np.frombuffer(base64.b64decode(packed["data"]), kinds[packed["type"]])


def test_the_page_comes_sealed(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert "connect-src &#x27;self&#x27;" in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/health").json() == {"ok": True}


def test_both_circuits_and_next_tokens(client, session):
    found = ask(client, "hello").json()
    ids = torch.tensor([list(b"hello")])
    for panel, model in zip(found["panels"], session.models, strict=True):
        expected = trace(model, ids, outputs=(4,))
        assert numbers(panel["open"]).tolist() == [len(expected)]
        assert numbers(panel["query"]).size == len(expected)
        assert panel["outputs"] == [[4]]
    for rows, model in zip(found["next"], session.models, strict=True):
        with torch.no_grad():
            expected = model(ids).logits[0, -1].softmax(-1).max().item()
        assert rows[0][1] == pytest.approx(expected, rel=1e-5)
        assert len(rows) == 10


def test_a_cut_edge_and_a_cut_head_change_the_answer_and_are_put_back(client, session):
    whole = ask(client).json()
    edge = ask(client, cuts=[[heaviest(whole["panels"][0])], []]).json()
    head = ask(client, cuts=[[[0, 1]], []]).json()
    assert numbers(edge["panels"][0]["open"])[0] == numbers(whole["panels"][0]["open"])[0] - 1
    layers, heads = (numbers(head["panels"][0][name]) for name in ("layer", "head"))
    assert not ((layers == 0) & (heads == 1)).any()
    assert edge["next"][0] != whole["next"][0] != head["next"][0]
    assert edge["next"][1] == whole["next"][1]
    assert ask(client).json() == whole
    assert gates_of(session.models[0]).keep is None


def heaviest(panel) -> list[int]:
    """The heaviest edge into the last position."""
    last = numbers(panel["query"]) == 4
    at = int(np.argmax(np.where(last, numbers(panel["weight"]), 0)))
    return [int(numbers(panel[name])[at]) for name in ("layer", "head", "query", "key")]


@pytest.mark.parametrize(
    ("prompt", "cuts", "words"),
    [
        ("", None, "an empty prompt"),
        ("x" * 33, None, "a prompt of 33 tokens: expected at most 32"),
        ("x" * 41, None, "a prompt of 41 characters"),
        (7, None, "a question is"),
        ("a", [[]], "a question is"),
        ("a", [[[0, 0, True, 0]], []], "a question is"),
        ("a", [[[0, 0, 5, 0]], []], "edge 0,0,5,0: expected one of 2 layers, 2 heads, 1 tokens"),
        ("a", [[[-1, 0]], []], "edge -1,0"),
    ],
)
def test_bad_questions_get_one_line(client, prompt, cuts, words):
    answer = ask(client, prompt, cuts)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_what_is_not_a_question(client):
    assert (
        client.post("/api/look", content=b"{", headers={"content-type": "application/json"}).status_code
        == 400
    )
    assert client.post("/api/look", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    large = b" " * 4_000_001
    assert (
        client.post("/api/look", content=large, headers={"content-type": "application/json"}).status_code
        == 413
    )
    assert ask(client, headers={"origin": "http://elsewhere.example"}).status_code == 403
    assert ask(client, headers={"origin": "http://localhost"}).status_code == 200


def test_a_token_is_asked_for(session):
    with visitor(app(session, token=TOKEN)) as client:
        assert client.get("/").status_code == 401
        assert ask(client).status_code == 401
        assert client.get("/", params={"token": TOKEN}).status_code == 200
        assert client.get("/", params={"token": "é"}).status_code == 401
        assert ask(client, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_only_so_many_at_a_time(session):
    made = app(session)

    async def crowd() -> list[int]:
        import httpx2 as httpx

        transport = httpx.ASGITransport(app=made)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answers = await asyncio.gather(
                *(client.post("/api/look", json={"prompt": "hello"}) for _ in range(6))
            )
        return sorted(answer.status_code for answer in answers)

    assert asyncio.run(crowd()) == [200, 200, 429, 429, 429, 429]


def test_a_failing_model_is_said(session, monkeypatch):
    def fall(*_: object) -> None:
        raise RuntimeError("out of memory\nand a long story")

    monkeypatch.setattr(session, "answer", fall)
    with visitor(app(session)) as client:
        answer = ask(client)
    assert answer.status_code == 500
    assert answer.json() == {"error": "the model failed: out of memory"}


def test_no_model_is_a_page_that_says_why():
    with visitor(app(refuse("<x> is torn", "expected whole ones", "copy it again"))) as client:
        front = client.get("/")
        assert front.status_code == 503
        assert "&lt;x&gt; is torn" in front.text
        assert ask(client).status_code == 503


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_only_loopback_goes_without_a_token(host):
    assert not is_loopback(host)
    with pytest.raises(GossamerError, match="without a token"):
        checked_token(host, "")
    assert checked_token(host, TOKEN) == TOKEN
    assert len(checked_token(host, "new")) >= 40


def test_loopback_and_short_tokens():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "[::1]")))
    assert checked_token("127.0.0.1", "") == ""
    with pytest.raises(GossamerError, match="a token of 5 characters"):
        checked_token("0.0.0.0", "short")


@pytest.mark.parametrize(
    ("header", "host", "ours"),
    [
        ("localhost:8642", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", True),
        ("[::1]:8642", "localhost", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("box.example:80", "box.example", True),
        ("192.168.1.5:8642", "192.168.1.5", True),
        ("192.168.1.5", "0.0.0.0", True),
        ("[fe80::1]", "::", True),
        ("evil.example", "127.0.0.1", False),
        ("evil.example", "0.0.0.0", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("192.168.1.5", "127.0.0.1", False),
        ("localhost@evil.example", "127.0.0.1", False),
        ("[", "127.0.0.1", False),
        ("", "127.0.0.1", False),
    ],
)
def test_only_our_hosts_are_answered(session, header, host, ours):
    assert is_ours(header, host) == ours
    with visitor(app(session, host=host)) as client:
        for path in ("/", "/health"):
            assert (client.get(path, headers={"host": header}).status_code == 200) == ours


@pytest.mark.parametrize("half", ["\\ud800", "a\\udfffb"])
def test_half_a_character_is_a_bad_question(client, half):
    content = f'{{"prompt": "{half}"}}'.encode()
    answer = client.post("/api/look", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "half of a character" in answer.json()["error"]


def test_cuts_have_a_limit_and_many_are_quick(session):
    every = [[0, 0, query, key] for query in range(5) for key in range(5)]
    with visitor(app(session)) as client:
        assert ask(client, cuts=[every * 400, []]).status_code == 200
        over = ask(client, cuts=[every * 400, [[0, 0]]])
    assert over.status_code == 400
    assert "10,001 cuts: expected at most 10,000" in over.json()["error"]


def test_a_question_that_takes_too_long_is_stopped_in_a_layer(session, monkeypatch):
    monkeypatch.setattr(session, "limits", replace(session.limits, seconds=-1.0))
    with visitor(app(session)) as client:
        answer = ask(client)
    assert answer.status_code == 503
    assert "not done within -1 s" in answer.json()["error"]
    assert not any(turn.locked() for turn in session.turns)


def test_what_is_under_way_ends_with_the_server(session):
    made = app(session)
    made.state.guard.ended.set()
    with visitor(made) as client:
        assert ask(client).status_code == 503


def test_a_body_has_a_time_limit(session, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    sent: list[dict[str, Any]] = []
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": "/api/look", "query_string": b"", "headers": headers,
        "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
    }  # fmt: skip

    async def half() -> dict[str, Any]:
        if sent:
            await asyncio.sleep(60)
        sent.append({"type": "half"})
        return {"type": "http.request", "body": b'{"prompt"', "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(app(session)(scope, half, send), 5))
    assert sent[1]["status"] == 408


def test_a_taken_port_and_a_foreign_host_are_one_line():
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(GossamerError, match=rf"127.0.0.1:{port} cannot be listened on \(Address already"):
            listening("127.0.0.1", port)
    with pytest.raises(GossamerError, match="cannot be listened on"):
        listening("192.0.2.1", 0)
