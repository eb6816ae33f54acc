"""A bound on the connections of one peer: no single client takes them all."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar

from include.serving.http_limits import EdgeProtocol

SHARE = 0.75  # of all connections; a proxy before the node is one peer too


class PeerProtocol(EdgeProtocol):
    """The node's HTTP protocol, which sends a peer away that has too many connections already.

    Peers are counted by address, over all connections of this process.
    """

    most = 768  # connections of a peer; the node sets it from its own cap
    by_peer: ClassVar[Counter[str]] = Counter()
    refused = 0  # since it was last asked

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and close it at once where its peer has too many."""
        super().connection_made(transport)
        address = transport.get_extra_info("peername")
        self._peer = str(address[0]) if isinstance(address, tuple) and address else "unknown"
        PeerProtocol.by_peer[self._peer] += 1
        if PeerProtocol.by_peer[self._peer] > PeerProtocol.most:
            PeerProtocol.refused += 1
            transport.abort()  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; a peer without any is forgotten too."""
        super().connection_lost(exc)
        PeerProtocol.by_peer[self._peer] -= 1
        if PeerProtocol.by_peer[self._peer] <= 0:
            del PeerProtocol.by_peer[self._peer]

    @classmethod
    def take_refused(cls) -> int:
        """Return how many connections were refused since this was last asked."""
        refused, PeerProtocol.refused = PeerProtocol.refused, 0
        return refused
