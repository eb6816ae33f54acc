"""Requests and answers of the node over raw ASGI."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import cast

import msgspec
from starlette.types import Message, Receive, Scope, Send

from include.errors import ConfigError, Conflict, EvergreenError, Unavailable

MAX_BODY = 1024 * 1024  # bytes
MAX_ECHO = 80  # characters of a text from outside that an answer or a log line repeats
MAX_MESSAGE = 600
# What may be put into a header and a log as it is.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}\Z")
# The folders of an absolute path; of addresses those of SQLite alone, which have no host.
_FOLDERS = re.compile(r"(?:(?<=sqlite:///)|(?<![\w.:/]))/(?:[^\s/:;,()'\"]+/)+(?=[^\s/])")
EXPLAIN = b"x-evergreen-explain"  # 1: the answer's headers tell which arm of a release answered
GIVEN_UP = "evergreen.given_up"  # in a scope: the status that was answered by hand
LINGER_SECONDS = 3.0  # for so long the rest of a refused body is read
_encode = msgspec.json.Encoder().encode


class Refusal(EvergreenError):
    """A request that is refused: a status, a code for programs, a message for people.

    `field` is the one at fault. `linger` says that a body may still be on its way.
    """

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
        # What a client sent may stand in both; an answer must not be longer than its question.
        super().__init__(message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}...")
        field = field if field is None else field[:MAX_ECHO]
        self.status, self.code, self.field, self.linger = status, code, field, linger
        self.headers, self.flags = list(headers), list(flags)

    def error(self) -> msgspec.Raw:
        """Return the error object alone, as JSON."""
        return msgspec.Raw(_encode(self._plain()))

    def body(self, request_id: str | None = None) -> bytes:
        """Return the answer's body; a request that was never whole has no id."""
        answered: dict[str, object] = {"error": self._plain()}
        if request_id is not None:
            answered["request_id"] = request_id
        return _encode(answered)

    def _plain(self) -> dict[str, object]:
        error: dict[str, object] = {"code": self.code, "message": str(self)}
        if self.field is not None:
            error["field"] = self.field
        if self.flags:
            error["flags"] = self.flags
        return error


def reason_of(error: Exception) -> bytes | None:
    """Return why no model answered, in a word; None: the caller is at fault."""
    if isinstance(error, Refusal):
        return error.code.encode("ascii") if error.status >= 500 else None
    return b"model_failed" if isinstance(error, Unavailable) else b"fault"


def without_folders(text: str) -> str:
    """Return a text with the last part alone of each path of this machine in it.

    Where the node keeps its files is nothing for callers.
    """
    return _FOLDERS.sub("", text)


def as_refusal(error: EvergreenError) -> Refusal:
    """Return how an error of ours is answered."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Conflict):
        return Refusal(409, "conflict", str(error))
    if isinstance(error, ConfigError):
        return Refusal(422, "invalid", str(error))
    text = without_folders(str(error))
    return Refusal(503, "unavailable", text, headers=[(b"retry-after", b"5")])


class Disconnected(Exception):
    """The client went away before its request was whole."""


def caller_id_of(given: bytes | None) -> str | None:
    """Return the caller's own id of a request, if it can be put into a header and a log."""
    return given.decode("ascii") if given is not None and _REQUEST_ID.match(given) else None


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the value of a header, or None; of several the first."""
    for key, value in scope["headers"]:
        if key == name:
            return cast(bytes, value)
    return None


async def read_json_body(scope: Scope, receive: Receive) -> bytes:
    """Return the body of a JSON request.

    Raises:
        Refusal: 415 for another media type or an encoded body, 413 above MAX_BODY, declared or
            streamed.
        Disconnected: the client left.
    """
    media = header(scope, b"content-type")
    if media is None or media.partition(b";")[0].strip().lower() != b"application/json":
        shown = (media or b"none").decode("latin-1")[:80]
        raise Refusal(
            415, "media_type", f"content-type is {shown!r}; send application/json", linger=True
        )
    encoding = header(scope, b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise Refusal(
            415, "content_encoding", "encoded bodies are refused; send plain JSON", linger=True
        )
    length = header(scope, b"content-length")
    if length is not None and int(length) > MAX_BODY:
        raise _too_large()
    message = await receive()
    body = cast(bytes, message.get("body", b""))
    # Nearly every body comes whole, in one message: nothing is copied then.
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
    more: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole answer in JSON; `more` are headers that are added."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id),
        (b"x-content-type-options", b"nosniff"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def closing(send: Send) -> Send:
    """Return `send` with `connection: close`: the node ends, the client is to come anew."""

    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return send_last


async def refuse(refusal: Refusal, receive: Receive, send: Send, request_id: str) -> None:
    """Answer a refusal; where a body may still be on its way, read and discard it for a while.

    Closing at once would reset the connection under the client before it has read why. So the
    answer is sent but not ended, what comes is discarded, then the connection is closed.
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
            while (message := await receive())["type"] == "http.request" and message.get(
                "more_body"
            ):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})


def _too_large() -> Refusal:
    return Refusal(
        413,
        "too_large",
        f"the body is larger than {MAX_BODY} bytes; ask for less at a time",
        linger=True,
    )


def wrong_method(scope: Scope, right: str) -> Refusal:
    """Return the refusal of a method; `right` is the one that the path is served by."""
    return Refusal(
        405,
        "method",
        f"{scope['method']} is not served here; use {right}",
        headers=[(b"allow", right.encode())],
        linger=True,
    )
