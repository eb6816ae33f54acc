"""HTTP at the edge: limits on headers, bodies and time, and what a refusal looks like.

uvicorn bounds neither the headers nor how long a client may take to send them; `EdgeProtocol` and `sweep` do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from include.errors import EvergreenError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY = 1024 * 1024
MAX_HEAD = 16 * 1024
HEAD_SECONDS = 10.0
BODY_SECONDS = 20.0
LINGER_SECONDS = 3.0
_CHUNK_ROOM = 256 * 1024

_encode = msgspec.json.Encoder().encode


class Refusal(EvergreenError):
    """A request that is refused: an HTTP status, a code for programs, a message for people, the field at fault."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        flags: Iterable[str] = (),
        linger: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.field, self.linger = status, code, field, linger
        self.headers, self.flags = list(headers), list(flags)

    def body(self, request_id: str) -> bytes:
        """Return the answer's body."""
        error: dict[str, object] = {"code": self.code, "message": str(self)}
        if self.field is not None:
            error["field"] = self.field
        if self.flags:
            error["flags"] = self.flags
        return _encode({"error": error, "request_id": request_id})


class Disconnected(Exception):
    """The client went away before its request was whole."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the value of a header, or None; of several the first."""
    for key, value in scope["headers"]:
        if key == name:
            return cast(bytes, value)
    return None


async def read_json_body(scope: Scope, receive: Receive) -> bytes:
    """Return the body of a JSON request.

    Raises:
        Refusal: 415 for another media type or an encoded body, 413 above MAX_BYTES, declared or streamed.
        Disconnected: the client left.
    """
    media = header(scope, b"content-type")
    if media is None or media.partition(b";")[0].strip().lower() != b"application/json":
        shown = (media or b"none").decode("latin-1")[:80]
        raise Refusal(415, "media_type", f"content-type is {shown!r}; send application/json", linger=True)
    encoding = header(scope, b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise Refusal(415, "content_encoding", "encoded bodies are refused; send plain JSON", linger=True)
    length = header(scope, b"content-length")
    if length is not None and int(length) > MAX_BODY:
        raise _too_large()
    message = await receive()
    body = cast(bytes, message.get("body", b""))
    if message["type"] == "http.request" and not message.get("more_body"):
        if len(body) > MAX_BODY:
            raise _too_large()
        return body
    parts, size = [body], len(body)
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        part = cast(bytes, message.get("body", b""))
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            raise _too_large()
    if message["type"] != "http.request":
        raise Disconnected
    return b"".join(parts)


async def answer(
    send: Send,
    status: int,
    body: bytes,
    request_id: bytes,
    *,
    media: bytes = b"application/json",
    more: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole answer."""
    headers = [
        (b"content-type", media),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id),
        (b"x-content-type-options", b"nosniff"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(refusal: Refusal, receive: Receive, send: Send, request_id: str) -> None:
    """Answer a refusal; where a body is still on its way, answer first, then discard for a while, then close.

    Closing at once would reset the connection under the client before it has read why.
    """
    body, name = refusal.body(request_id), request_id.encode("ascii")
    if not refusal.linger:
        await answer(send, refusal.status, body, name, more=refusal.headers)
        return
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", name),
        (b"connection", b"close"),
        *refusal.headers,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})


def _too_large() -> Refusal:
    return Refusal(413, "too_large", f"the body is larger than {MAX_BODY} bytes; ask for one entity at a time", linger=True)


class EdgeProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """uvicorn's HTTP protocol, with bounded headers and the time at which the request in hand began."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.began: float | None = None
        self.in_head = True
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock: a client that never asks anything is sent away too."""
        super().connection_made(transport)
        self.began = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Refuse endless headers before they are collected."""
        if self.in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD + _CHUNK_ROOM:
                self.give_up(431, "the request's headers are too large")
                return
        if self.parser is not None:
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        super().on_message_begin()
        self.began, self.in_head = self.loop.time(), True

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless its headers are too many."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD:
            self.give_up(431, f"the request's headers are larger than {MAX_HEAD} bytes")
            return
        self.in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body, unless the request was given up."""
        if not self.in_head:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock."""
        given_up, self.began, self.in_head = self.in_head, None, True
        if not given_up:
            super().on_message_complete()

    def give_up(self, status: int, reason: str) -> None:
        """Answer by hand and close; nothing of the request reaches the application any more."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        between = self.in_head and (cycle is None or cycle.response_complete)
        if between or (not self.in_head and cycle is not None and not cycle.response_started):
            body = _encode({"error": {"code": "refused", "message": reason}})
            head = f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()


def sweep(connections: Iterable[Any], now: float) -> int:
    """Send away the clients that take too long to send a request; return how many."""
    late = 0
    for protocol in list(connections):
        if not isinstance(protocol, EdgeProtocol) or protocol.began is None:
            continue
        limit = HEAD_SECONDS if protocol.in_head else BODY_SECONDS
        if now - protocol.began > limit:
            protocol.give_up(408, f"the request was not whole after {limit:.0f} s")
            late += 1
    return late
