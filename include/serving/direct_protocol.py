"""The node's HTTP protocol: plain predictions are answered at once, the rest by the application.

uvicorn makes a task, an event and some messages for each request, which take longer than a model.
A plain prediction needs none of them: when its body is whole, its answer is written. Any other
request is handed over to uvicorn when its headers are whole, and a plain one too whenever something
comes in between: an answer that is not sent yet, a slow reader, an end of the node.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from include.serving.direct import Direct, Headers
from include.serving.peers import PeerProtocol


class DirectProtocol(PeerProtocol):
    """`PeerProtocol` with a short way for what `Direct` takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        direct: Direct = self.config.app.direct
        self._direct = direct
        self._use_case = ""  # of the plain request in hand
        self._known: Headers = {}
        self._body: bytes | bytearray = b""

    def on_message_begin(self) -> None:
        """Begin a request; what only the application needs of it is made when it gets it."""
        self.url, self.expect_100_continue = b"", False
        self.headers: list[tuple[bytes, bytes]] = []
        self.start_clock()

    def open_request(self) -> None:
        """Keep a plain request; hand over any other."""
        known = dict(self.headers)
        if (
            len(known) == len(self.headers)  # else which one of two counts is uvicorn's to say
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
        ):
            self._use_case = self._direct.takes(self.url, known)
        if self._use_case:
            self._known, self._body = known, b""
        else:
            self._open_for_application()

    def take_body(self, body: bytes) -> None:
        """Keep a piece of a plain request's body."""
        if not self._use_case:
            super().take_body(body)
        elif not self._body:
            self._body = body
        else:
            if isinstance(self._body, bytes):  # bytes would be copied whole with each piece
                self._body = bytearray(self._body)
            self._body += body

    def close_request(self) -> None:
        """Answer a plain request, if nothing is before it."""
        if not self._use_case:
            super().close_request()
            return
        cycle = self.cycle
        if (
            (cycle is None or cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
            and len(self.connections) < (self.limit_concurrency or len(self.connections) + 1)
        ):
            answer = self._direct.answer(
                self._use_case, self._known, bytes(self._body), self.server_state.default_headers
            )
            if answer is not None:
                self._use_case = ""
                self.transport.write(answer)
                self.server_state.total_requests += 1
                self.idle_since = self.loop.time()
                return
        self._hand_over()
        super().close_request()

    def give_up(self, status: int, reason: str) -> None:
        """Answer by hand and close, as for a request that was handed over."""
        self._hand_over()
        super().give_up(status, reason)

    def shutdown(self) -> None:
        """Let a request in hand end, then close."""
        self._hand_over()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the application count a client that left in the middle."""
        self._hand_over()
        super().connection_lost(exc)

    def _hand_over(self) -> None:
        """Give a plain request to the application, with as much of its body as is there."""
        if self._use_case:
            self._use_case = ""
            self._open_for_application()
            if self._body:
                super().take_body(bytes(self._body))

    def _open_for_application(self) -> None:
        """Begin the request anew as uvicorn does, with what was collected of it."""
        collected = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.headers, self.expect_100_continue = collected
        self.scope["headers"] = self.headers
        super().open_request()
