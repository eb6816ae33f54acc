"""A link to a server on this machine that is cut in the middle of its answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class CutLink:
    """Passes bytes on to a server until it is told to cut; as a block it listens on `port`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._most, self._times = 0, 0
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def cut_after(self, most: int, *, times: int) -> None:
        """Cut each connection after so many bytes of answers, so often."""
        self._most, self._times = most, times

    def __enter__(self) -> CutLink:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
                threading.Thread(
                    target=self._pass_on, args=(server, client, True), daemon=True
                ).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool = False) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                passed += len(piece)
                if counted and self.cuts < self._times and passed > self._most:
                    self.cuts += 1
                    break
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
