"""Which use cases are served now, and whether the node can follow the records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from include.serving.http import Refusal
from include.serving.snapshot import Served

if TYPE_CHECKING:
    from include.deployment.release_view import ReleaseView


LookAtReleases = Callable[[Sequence[str]], Awaitable[Mapping[str, "ReleaseView"]]]


async def _see_nothing(names: Sequence[str]) -> Mapping[str, ReleaseView]:
    return {}


class ServingTable:
    """One snapshot a use case; the reconciler writes it, requests read it, all on the event loop.

    `started` says that the rows were read once, `source` from where: records or file; `healthy`
    that the records can be followed, `draining` that the node is about to end, `restart` why it is
    to be restarted. `roles` tells how far the models of a use case are, `shadows` what is
    mirrored of it, `disk` for which of them the log lacks room; `look_at_releases` asks the records
    how those of these use cases stand. `changed` is set by each snapshot; whoever waits for one
    clears it.
    """

    def __init__(self) -> None:
        self.served: dict[str, Served] = {}
        self.changed = asyncio.Event()
        self.healthy, self.started, self.draining = True, False, False
        self.source, self.restart = "records", ""
        self.disk: Mapping[str, str] = {}
        self.roles: Callable[[str], Mapping[str, object]] = lambda use_case: {}
        self.shadows: Callable[[str], Mapping[str, object]] = lambda use_case: {}
        self.look_at_releases: LookAtReleases = _see_nothing

    def find(self, use_case: str) -> Served:
        """Return what is served of a use case.

        Raises:
            Refusal: 503 while the node starts, 404 if there is no such use case.
        """
        if not self.started:
            raise Refusal(
                503,
                "starting",
                "the node has not read the use cases yet",
                headers=[(b"retry-after", b"1")],
                linger=True,
            )
        served = self.served.get(use_case)
        if served is None:
            names = ", ".join(sorted(self.served)) or "none yet"
            raise Refusal(
                404,
                "unknown_use_case",
                f"no use case {use_case[:80]!r}; served are: {names}",
                linger=True,
            )
        return served

    @property
    def status(self) -> str:
        """What /health says of the node: starting, ok or degraded."""
        if not self.started:
            return "starting"
        return "ok" if self.healthy else "degraded"
