"""Bodies that are read, and refusals that reach who still sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from include.errors import Unavailable
from include.serving import http
from include.serving.http import (
    MAX_BODY,
    Disconnected,
    Refusal,
    as_refusal,
    read_json_body,
    refuse,
)

pytestmark = pytest.mark.anyio
JSON = (b"content-type", b"application/json; charset=utf-8")
Message = MutableMapping[str, Any]


class Peer:
    """A client: the messages that come of it, and those that it got."""

    def __init__(self, *bodies: bytes, ends: bool = True) -> None:
        self.got: list[Message] = []
        last = len(bodies) - 1
        self._messages: list[Message] = [
            {"type": "http.request", "body": body, "more_body": number < last or not ends}
            for number, body in enumerate(bodies)
        ]

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.got.append(message)

    @property
    def unread(self) -> int:
        """How many messages were not read."""
        return len(self._messages)


def scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"headers": list(headers), "method": "POST"}


@pytest.mark.parametrize("bodies", [(b"{}",), (b"{", b"}"), (b"", b"{}", b"")])
async def test_a_body_is_read_whole(bodies: tuple[bytes, ...]) -> None:
    assert await read_json_body(scope(JSON), Peer(*bodies).receive) == b"{}"


@pytest.mark.parametrize(
    ("headers", "bodies", "status"),
    [
        ((), (b"{}",), 415),
        (((b"content-type", b"text/plain"),), (b"{}",), 415),
        ((JSON, (b"content-encoding", b"gzip")), (b"{}",), 415),
        ((JSON, (b"content-length", str(MAX_BODY + 1).encode())), (b"{}",), 413),
        ((JSON,), (b"x" * (MAX_BODY + 1),), 413),
        ((JSON,), (b"x" * MAX_BODY, b"x"), 413),
    ],
)
async def test_another_body_is_refused(
    headers: tuple[tuple[bytes, bytes], ...], bodies: tuple[bytes, ...], status: int
) -> None:
    with pytest.raises(Refusal) as caught:
        await read_json_body(scope(*headers), Peer(*bodies).receive)
    assert (caught.value.status, caught.value.linger) == (status, True)


async def test_a_body_of_the_largest_size_is_read() -> None:
    body = b"x" * MAX_BODY
    assert await read_json_body(scope(JSON), Peer(body).receive) == body


@pytest.mark.parametrize("bodies", [(), (b"{",)])
async def test_a_client_that_leaves_has_no_body(bodies: tuple[bytes, ...]) -> None:
    with pytest.raises(Disconnected):
        await read_json_body(scope(JSON), Peer(*bodies, ends=False).receive)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("the log /srv/ev/predictions/loans is full", "the log loans is full"),
        ("'/srv/ev/a.db': no space left; see /docs", "'a.db': no space left; see /docs"),
        ("sqlite:////srv/ev/records.db is locked", "sqlite:///records.db is locked"),
        ("ask https://node.example/v1/loans", "ask https://node.example/v1/loans"),
        ("1/2 of bento loans_scorer:one", "1/2 of bento loans_scorer:one"),
    ],
)
async def test_nobody_is_told_where_the_node_keeps_its_files(text: str, told: str) -> None:
    assert str(as_refusal(Unavailable(text))) == told


async def test_a_refusal_says_what_is_wrong_and_where() -> None:
    peer = Peer()
    refusal = Refusal(422, "invalid", "is wrong", field="entity", flags=["stale"])
    await refuse(refusal, peer.receive, peer.send, "r-1")
    start, body = peer.got
    assert start["status"] == 422
    assert (b"x-request-id", b"r-1") in start["headers"]
    assert json.loads(body["body"]) == {
        "error": {
            "code": "invalid",
            "message": "is wrong",
            "field": "entity",
            "flags": ["stale"],
        },
        "request_id": "r-1",
    }


async def test_who_still_sends_gets_the_refusal_first_then_is_read_to_the_end() -> None:
    peer = Peer(b"a", b"b", b"c")
    await refuse(Refusal(413, "too_large", "x", linger=True), peer.receive, peer.send, "r-1")
    start, body, end = peer.got
    assert (b"connection", b"close") in start["headers"]
    assert (body["more_body"], end.get("more_body", False)) == (True, False)
    assert peer.unread == 0


async def test_who_sends_without_end_is_left_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "LINGER_SECONDS", 0.05)
    peer = Peer()

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async with asyncio.timeout(60):
        await refuse(Refusal(413, "too_large", "x", linger=True), receive, peer.send, "r-1")
    assert peer.got[-1] == {"type": "http.response.body", "body": b""}


def test_what_was_never_whole_has_no_id() -> None:
    assert "request_id" not in json.loads(Refusal(408, "refused", "too slow").body())
