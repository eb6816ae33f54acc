"""Where a request ends and the next one begins, and in which order their answers leave.

uvicorn takes an offer of another protocol for the end of HTTP, puts a refusal before the answers
that a client waits for, reads on behind it, and forgets a client that has only ended its own half
of the connection.
"""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OrderedProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """uvicorn's HTTP protocol, which answers what was asked whole, in order, before it ends.

    `in_head` says that the headers of the request in hand are not whole, or that none is in hand.
    `is_over` says that nothing more is read.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser: Any
        self.in_head = True
        self.is_over = False
        self._last = b""  # what is sent behind the answers that are owed, once it is over
        self._offered = b""  # the head of a request that is set aside, without its offer

    def parse(self, data: bytes) -> None:
        """Read requests; what is none is refused."""
        self._unset_keepalive_if_required()
        pieces: list[bytes | memoryview] = [data]
        try:
            while pieces:
                piece = pieces.pop()
                try:
                    self.parser.feed_data(piece)
                except httptools.HttpParserUpgrade as offer:
                    if not self._offered:
                        return
                    # The parser has left out the body: what stands in it would be read as requests
                    # of the client's own, behind a proxy as those of everybody. So it reads the
                    # same request once more, without the offer.
                    pieces += [memoryview(piece)[offer.args[0] :], self._offered]
                    self._offered, self.parser = b"", httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        except httptools.HttpParserError:
            if not self.is_over:
                self.logger.warning("Invalid HTTP request received.")
                self.refuse_nonsense()

    def sets_aside(self) -> bool:
        """Tell whether the request whose headers are whole offers another protocol.

        None is spoken here, and whoever offers one may go on without: it comes again as if it had
        offered none. CONNECT is no offer, but a request that is not served.
        """
        if not self.parser.should_upgrade() or self.parser.get_method() == b"CONNECT":
            return False
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self._offered = b"\r\n".join(lines) + b"\r\n\r\n"
        return True

    def refuse_nonsense(self) -> None:
        """Refuse what is no request."""
        self.end_with(b"")

    def end_with(self, answer: bytes) -> None:
        """Send the answers that are owed, then this one, and close; nothing more is read.

        It is left out where the answer to the request in hand has begun: it would be taken for a
        part of it.
        """
        cycle, self.is_over = self.cycle, True
        owed = cycle is not None and not cycle.response_complete
        if not self.in_head and cycle is not None:
            owed = self.is_queued(cycle)
            if owed:
                self.pipeline.popleft()  # it is answered by this
            elif cycle.response_started:
                answer = b""
        if owed:
            self._last = answer
            return
        self._end(answer)

    def is_queued(self, cycle: Any) -> bool:
        """Tell whether the request in hand waits for the answers to those before it."""
        return bool(self.pipeline) and self.pipeline[0][0] is cycle

    def _end(self, answer: bytes) -> None:
        if answer:
            self.transport.write(answer)
        self.transport.close()

    def on_response_complete(self) -> None:
        """Begin to answer the next request, or end behind the last one."""
        if self.is_over and not self.pipeline and not self.transport.is_closing():
            self._end(self._last)
        super().on_response_complete()

    def eof_received(self) -> bool:
        """Keep the connection for the answers that are owed: a client may end its own half."""
        if not self.is_over and not self.transport.is_closing():
            self.end_with(b"")
        return not self.transport.is_closing()
