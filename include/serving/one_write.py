"""An answer is sent by one write: a node that is killed has sent all of it, or nothing.

uvicorn writes the head of an answer, then its body. Killed in between, the node leaves a client
with a head and no body, which no balancer can mend: it asks again only where nothing has come.
"""

from __future__ import annotations

import asyncio


class OneWrite:
    """The transport of one answer, as uvicorn uses it: its head waits for what comes after it.

    What is written for a client that has left is passed over: of uvloop's transports it would be an
    error, and uvicorn asks only whether whoever sent the newest request is there.
    """

    __slots__ = ("_has_begun", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, *, has_body: bool = True) -> None:
        """Build it; an answer without a body, to HEAD, is its head alone."""
        self._transport, self._head, self._has_begun = transport, b"", not has_body

    def write(self, data: bytes) -> None:
        """Keep the head of the answer; send the first part of its body with it, then the rest."""
        if self._has_begun:
            self._put(data)
        elif self._head:
            self._send_head(data)
        elif data.startswith(b"HTTP/1.1 100 "):  # the client waits for it, before it sends its body
            self._put(data)
        else:
            self._head = data

    def close(self) -> None:
        """Send what waits, then close."""
        if self._head:
            self._send_head(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether the connection is closed, or about to be."""
        return self._transport.is_closing()

    def _send_head(self, data: bytes) -> None:
        self._put(self._head + data)
        self._head, self._has_begun = b"", True

    def _put(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
