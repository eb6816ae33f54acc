"""Limits on the size of a request and on the time that a client may take to send it.

uvicorn bounds neither; `EdgeProtocol` and `end_slow_requests` do. The limit on bodies is in `http`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from include.serving.http import GIVEN_UP, MAX_BODY, Refusal
from include.serving.http_order import OrderedProtocol
from include.serving.one_write import OneWrite

MAX_HEAD = 16 * 1024  # bytes of path and headers
# Bytes of a whole request; chunks of a byte are framed by five more.
MAX_REQUEST = 2 * MAX_HEAD + 6 * MAX_BODY
HEAD_SECONDS = 10.0
BODY_SECONDS = 20.0
# One read from the socket may hold the headers and much of the body: only what is well above that
# is refused before the parser has found the end of the headers.
_CHUNK_ROOM = 256 * 1024


class _GivenUp(Exception):
    """Stops the parser: what stands behind a request that was given up is not read."""


class EdgeProtocol(OrderedProtocol):
    """uvicorn's HTTP protocol, with bounded headers and a clock for each request.

    `began` is when the request in hand began, in the loop's seconds; None between requests, when
    uvicorn's own limit on idle connections applies. `idle_since` is since when a connection whose
    last answer was not uvicorn's is idle.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.began: float | None = None
        self.idle_since: float | None = None
        self._head_bytes = 0
        self._request_bytes = 0
        self._read_bytes = self._head_bound = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock: a client that never asks anything is sent away too."""
        super().connection_made(transport)
        self.began = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Refuse endless headers before they are collected."""
        if self.is_over:
            return
        self._read_bytes = len(data)
        if self.in_head:
            self._head_bytes += len(data)
            self._head_bound += len(data)
            if self._head_bytes > MAX_HEAD + _CHUNK_ROOM:
                self.give_up(431, "the request's headers are too large")
                return
        # Headers, body, its framing and trailers of a request under one bound; of the next one that
        # a client sends ahead a read may hold some, too.
        self._request_bytes += len(data)
        if self._request_bytes > MAX_REQUEST + _CHUNK_ROOM:
            self.give_up(413, f"the request is larger than {MAX_REQUEST} bytes")
            return
        if self.parser is not None:
            self.parse(data)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.start_clock()

    def start_clock(self) -> None:
        """Start the clock of a request, and count what is read of it."""
        if self.is_over:
            raise _GivenUp
        self.began, self.in_head, self.idle_since = self.loop.time(), True, None
        self._trailer_bytes = self._request_bytes = 0
        # What was read with the beginning of the headers may all be of them; the rest adds to it.
        self._head_bound = self._read_bytes

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; what comes after the body is no header, and is only counted."""
        if self.in_head:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value)
        if self._trailer_bytes > MAX_HEAD:
            self.give_up(431, f"the request's trailers are larger than {MAX_HEAD} bytes")

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless its headers are too many."""
        # They are added up only where as much was read at all.
        if self._head_bound > MAX_HEAD:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MAX_HEAD:
                self.give_up(431, f"the request's headers are larger than {MAX_HEAD} bytes")
                return
        if self.sets_aside():
            return
        self.open_request()  # where it fails, no request is in hand
        self.in_head, self._head_bytes = False, 0

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body, unless the request was given up."""
        if not self.in_head:
            self.take_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock."""
        was_begun, self.began, self.in_head = not self.in_head, None, True
        self._request_bytes = 0
        if was_begun and not self.is_over:
            self.close_request()

    def open_request(self) -> None:
        """Hand a request to the application, its body may follow."""
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            has_body = self.scope["method"] != "HEAD"
            self.cycle.transport = OneWrite(self.transport, has_body=has_body)

    def take_body(self, body: bytes) -> None:
        """Hand over a piece of the body."""
        super().on_body(body)

    def close_request(self) -> None:
        """Say that the body is whole."""
        super().on_message_complete()

    def refuse_nonsense(self) -> None:
        """Refuse what is no request in the node's form."""
        self.give_up(400, "this is no HTTP request, or not one that can be read in one way only")

    def give_up(self, status: int, reason: str) -> None:
        """Answer by hand and close; nothing of the request reaches the application any more."""
        if self.is_over or self.transport.is_closing():
            return
        body = Refusal(status, "refused", reason).body()
        head = (
            f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self._count(status)
        self.end_with(head.encode() + body)
        self.began = None

    def _count(self, status: int) -> None:
        """Have the answer by hand counted once.

        The application counts the request that it has in hand, and is told by what status; one that
        it has begun to answer gets no other answer.
        """
        cycle = None if self.in_head else self.cycle
        if cycle is None or self.is_queued(cycle):
            self.config.app.metrics.count_answer("", "", status)
        elif not cycle.response_started:
            cycle.scope[GIVEN_UP] = status


def end_slow_requests(connections: Iterable[Any], now: float) -> int:
    """Send away the clients that take too long to send a request; return how many.

    Idle ones are closed without a word, as uvicorn does. `now` is in the loop's seconds.
    """
    late = 0
    for protocol in list(connections):
        if not isinstance(protocol, EdgeProtocol):
            continue
        if protocol.began is None:
            # Looked at here: a timer a request would cost more than the model.
            idle = protocol.idle_since
            if idle is not None and now - idle > protocol.timeout_keep_alive:
                protocol.transport.close()
            continue
        limit = HEAD_SECONDS if protocol.in_head else BODY_SECONDS
        if now - protocol.began > limit:
            protocol.give_up(408, f"the request was not whole after {limit:.0f} s")
            late += 1
    return late
