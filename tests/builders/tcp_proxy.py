"""A TCP proxy before a server: it delays what passes, and cuts connections at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.builders.ports import free_port

CHUNK = 65536


class Proxy:
    """Passes connections on to a server of this machine.

    `delay` seconds go by before each piece is passed on, in each direction. With `cut_answer_to`
    set, the next piece of a client that holds these bytes is passed on, and once the server has
    answered both ends are closed: the client never hears what came of it.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.delay = 0.0
        self.cut_answer_to: bytes | None = None
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                doomed = threading.Event()
                for source, sink, is_client in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=self._pass_on,
                        args=(source, sink, is_client, doomed),
                        daemon=True,
                    ).start()

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, is_client: bool, doomed: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(CHUNK):
                if not is_client and doomed.is_set():
                    break  # the answer, which the client does not get
                if is_client and self.cut_answer_to and self.cut_answer_to in piece:
                    self.cut_answer_to = None
                    self.cuts += 1
                    doomed.set()
                time.sleep(self.delay)
                sink.sendall(piece)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """Give a proxy before a port of this machine."""
    made = Proxy(target)
    try:
        yield made
    finally:
        made.close()
