"""The page for people on which releases stand: what the records say, and what this node does.

The records are asked in a thread, once for however many look at it, and for a moment only: where
they do not answer, the page says what the node knows by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

from include.deployment.release_view import ReleaseView, read_view
from include.records.records import Records
from include.serving.docs_page import describe_here, page_template
from include.serving.snapshot import Served

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
Views = Mapping[str, ReleaseView]
_template = page_template("releases.html")


def read_views(records: Records, names: Sequence[str]) -> Views:
    """Return how the releases of these use cases stand."""
    return {name: read_view(records, name) for name in names}


class ReleaseLook:
    """Asks the records for the page; belongs to the event loop."""

    def __init__(self, read: Callable[[Sequence[str]], Awaitable[Views]]) -> None:
        """Build it; `read` asks them, in a thread of its own."""
        self._read = read
        self._asking: asyncio.Task[Views] | None = None

    async def views(self, names: Sequence[str]) -> Views:
        """Return how releases stand; nothing where the records do not answer in time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._read(names))
        # Who comes while it is on its way waits for the same: a database that hangs holds one
        # thread, however often the page is read.
        done, _ = await asyncio.wait({self._asking}, timeout=LOOK_SECONDS)
        if not done:
            return {}
        if (error := self._asking.exception()) is not None:
            log.warning("the page of releases is shown without the records: %s", error)
            return {}
        return self._asking.result()


def render(served_by_name: Mapping[str, Served], views: Views, at: datetime) -> str:
    """Return the page."""
    use_cases = [
        {
            "name": name,
            "title": served.use_case.title or name,
            "view": views.get(name),
            "here": describe_here(served),
        }
        for name, served in sorted(served_by_name.items())
    ]
    return _template.render(use_cases=use_cases, at=f"{at:%Y-%m-%d %H:%M:%S} UTC")
