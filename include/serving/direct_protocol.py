"""The node's HTTP protocol: plain predictions are answered at once, the rest by the application.

uvicorn makes a task, an event and some messages for each request, which take longer than a model.
A plain prediction needs none of them: when its body is whole, its answer is written. Any other
request is handed over to uvicorn when its headers are whole, and a plain one too whenever something
comes in between: an answer that is not sent yet, a slow reader, an end of the node.

A request that another process is asked for keeps its connection waiting: what the client sends
meanwhile is read once it has its answer.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from include.serving.direct import Direct, Head, Headers
from include.serving.direct_made import Made, Waiting
from include.serving.peers import PeerProtocol

# Requests of one read that are answered before anybody else's turn: a read may hold thousands.
MAX_BURST = 32
_END = b"\r\n\r\n"  # of the headers


class DirectProtocol(PeerProtocol):
    """`PeerProtocol` with a short way for what `Direct` takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        direct: Direct = self.config.app.direct
        self._direct, self._turn = direct, self.config.app.turn
        self._use_case = ""  # of the plain request in hand
        self._known: Headers = {}
        self._body: bytes | bytearray = b""
        self._read = b""  # what was read last, if it began the connection, or behind our answer
        self._is_new = True  # nothing was read of it yet
        self._burst = 0  # answers to what was read last
        self._asked: bytes | None = None  # the request whose answer waits for its turn to end
        self._is_waiting = False  # for another process to answer it
        self._early = b""  # what came meanwhile
        self._is_ending = False  # the node ends once it is answered

    def on_message_begin(self) -> None:
        """Begin a request; what only the application needs of it is made when it gets it."""
        self.url, self.headers = b"", list[tuple[bytes, bytes]]()
        self.expect_100_continue = False
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

    def data_received(self, data: bytes) -> None:
        """Answer a request whose headers have been parsed before; parse any other."""
        if self._is_waiting:
            self._early += data
            self.flow.pause_reading()
            return
        self._end_turn()
        self._read, self._burst = b"", 0
        # After an answer of ours nothing has begun: the parser would read these bytes as it read
        # the equal ones, whose meaning is kept.
        if self.idle_since is not None:
            head, _, body = data.partition(_END)
            known = self._direct.heads.get(head)
            if known is not None and len(body) == known.length and self._is_free():
                made = self._direct.make(
                    known.use_case,
                    known.headers,
                    body,
                    self.server_state.default_headers,
                    self.client,
                    self._settle_late,
                )
                if isinstance(made, Waiting):
                    self._asked, self._is_waiting, self.idle_since = data, True, None
                    return
                if made is not None:
                    self._asked, self.idle_since = data, self.loop.time()
                    self._turn.add(made, self, self.loop)
                    return
            self._read = data
        elif self._is_new:
            self._read = data
        self._is_new = False
        super().data_received(data)

    def close_request(self) -> None:
        """Answer a plain request, if nothing is before it."""
        if not self._use_case:
            super().close_request()
            return
        if self._is_free():
            # Whether the read began with this request and ended with it.
            head, _, body = self._read.partition(_END)
            is_alone = body == self._body and bool(body)
            made = self._direct.make(
                self._use_case,
                self._known,
                bytes(self._body),
                self.server_state.default_headers,
                self.client,
                self._settle_late if is_alone else None,
            )
            if made is not None:
                if is_alone:
                    self._direct.keep_head(head, Head(self._use_case, self._known, len(body)))
                if isinstance(made, Waiting):
                    self._asked, self._is_waiting, self._use_case = self._read, True, ""
                    return
                answers = self._direct.settle([made])
                if answers is not None:
                    self._use_case = ""
                    self._send(answers[0])
                    return
        self._hand_over()
        super().close_request()

    def _settle_late(self, made: Made | None) -> None:
        """Take an answer that another process was asked for; None: take the long way."""
        self._is_waiting = False
        if made is not None:
            self.idle_since = self.loop.time()
            self._turn.add(made, self, self.loop)
        else:
            self.take_answer(None)

    def _is_free(self) -> bool:
        """Tell whether an answer may be written now."""
        cycle = self.cycle
        return (
            (cycle is None or cycle.response_complete)
            and not self.flow.write_paused
            and self._burst < MAX_BURST
            and not self.transport.is_closing()
            and (self.limit_concurrency is None or len(self.connections) < self.limit_concurrency)
        )

    def _send(self, answer: bytes) -> None:
        self.transport.write(answer)
        self._burst += 1
        self.server_state.total_requests += 1
        self.idle_since = self.loop.time()

    def take_answer(self, answer: bytes | None) -> None:
        """Send the answer that waited; without one, give its request to the application."""
        asked, self._asked = self._asked, None
        if asked is None or self.transport.is_closing():
            return
        if answer is not None:
            self._send(answer)
        else:
            self._read, self._burst = b"", MAX_BURST  # so that it is not answered here after all
            super().data_received(asked)
        if self._early or self._is_ending:
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Read what came while an answer was waited for, or end with the node."""
        early, self._early = self._early, b""
        if self._is_ending:
            self.shutdown()
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if early:
                self.data_received(early)

    def give_up_answer(self) -> None:
        """Close: what went wrong is in the node's log."""
        self._asked = None
        self.transport.close()

    def _end_turn(self) -> None:
        """Send what waits before anything else happens here: answers keep their order."""
        if self._asked is not None:
            self._turn.settle()

    def eof_received(self) -> bool:
        """Send what waits; a question to another process is waited for, too."""
        self._end_turn()
        if self._is_waiting:
            self._is_ending = True
            return True
        self._hand_over()
        return super().eof_received()

    def give_up(self, status: int, reason: str) -> None:
        """Answer by hand and close, as for a request that was handed over."""
        self._end_turn()
        self._hand_over()
        super().give_up(status, reason)

    def shutdown(self) -> None:
        """Let a request in hand end, then close."""
        self._end_turn()
        if self._is_waiting:
            self._is_ending = True
            return
        self._hand_over()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the application count a client that left in the middle."""
        self._end_turn()  # it was answered, though nobody reads it
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
