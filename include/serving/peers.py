"""Bounds on connections: what all may have together, and one peer, so that none takes them all."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar

from include.serving.http_limits import EdgeProtocol

SHARE = 0.75  # of all connections; a proxy before the node is one peer too


class PeerProtocol(EdgeProtocol):
    """The node's HTTP protocol, which sends away whom it has no room for when he connects.

    Peers are counted by address, over all connections of this process. uvicorn looks at its limit
    only when a request comes: idle connections would take all descriptors, and whoever is in would
    be refused, in plain text and in no counter, while as many are open as may be.
    """

    most = 768  # connections of a peer; the node sets it from its own cap
    by_peer: ClassVar[Counter[str]] = Counter()
    refused = 0  # since it was last asked

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and close it at once where its peer or all have too many."""
        super().connection_made(transport)
        address = transport.get_extra_info("peername")
        self._peer = str(address[0]) if isinstance(address, tuple) and address else "unknown"
        PeerProtocol.by_peer[self._peer] += 1
        limit = self.limit_concurrency
        is_full = limit is not None and len(self.connections) >= limit
        if is_full or PeerProtocol.by_peer[self._peer] > PeerProtocol.most:
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
