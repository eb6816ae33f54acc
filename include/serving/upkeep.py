"""What a node looks at now and then: its own code on the disk, and its home folder.

How large that is stands in a file of the supervisor. What nobody else keeps small there the node
does by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path

from include.artefacts.store import ArtefactStore
from include.records.models import Model
from include.retention.left_behind import remove_where_unkept, sizes_file
from include.serving.app import App
from include.serving.code_stamp import CodeStamp
from include.serving.unpacked import remove_unneeded
from include.serving.workers import Workers

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
TIDY_SECONDS = 3600.0  # between two looks for what can go
MAX_PARTS = 50  # of a home folder, each a series


class Upkeep:
    """Looks and tidies in a thread, and shows what it finds in the node's metrics and its health.

    Without a file of sizes, none are shown. `models` returns those that the node has, or is about
    to have.
    """

    def __init__(
        self,
        app: App,
        workers: Workers,
        stamp: CodeStamp,
        store: ArtefactStore,
        models: Callable[[], Collection[Model]],
    ) -> None:
        self._app, self._workers, self._stamp = app, workers, stamp
        self._store, self._models = store, models
        self._next_tidy = 0.0

    async def turn(self) -> None:
        """Look, tidy if that is due, then wait until the next look is due."""
        reason, sizes = await self._workers.run("upkeep", self._look)
        if reason and reason != self._app.table.restart:
            log.warning("%s", reason)
        self._app.table.restart = reason
        self._app.metrics.show_upkeep(code_changed=bool(reason), sizes=sizes)
        # A model is taken once, when it is loaded. Its copy must be there at the next start too,
        # whatever challengers came meanwhile, and though the store may be away.
        models = self._models()
        await self._workers.run("upkeep", self._store.mark_used, uris_of(models))
        table = self._app.table
        if table.started and time.monotonic() >= self._next_tidy:
            self._next_tidy = time.monotonic() + TIDY_SECONDS
            # The rows of the last time may lack some: what cannot be read is not gone.
            needed = tags_of(models) if table.source == "records" else None
            await self._workers.run("upkeep", self._tidy, needed)
        await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> tuple[str, dict[str, int]]:
        return self._stamp.restart_reason(), read_sizes(sizes_file(self._store.home))

    def _tidy(self, needed: Collection[str] | None) -> None:
        """Remove what nobody needs; no package where it is not known which are `needed`."""
        home, now = self._store.home, time.time()
        if needed is not None:
            remove_unneeded(home, needed, now)
        remove_where_unkept(home, now)


def uris_of(models: Collection[Model]) -> list[str]:
    """Return the addresses of what a node loads of models."""
    return [uri for one in models for uri in (one.bundle_uri, one.bento_uri) if uri is not None]


def tags_of(models: Collection[Model]) -> frozenset[str]:
    """Return the tags of the Bentos of models."""
    return frozenset(one.bento_tag for one in models if one.bento_tag is not None)


def read_sizes(path: Path) -> dict[str, int]:
    """Return the bytes of the parts of a home folder as its supervisor wrote them, or none."""
    try:
        found = json.loads(path.read_bytes())
        parts = sorted(found.items(), key=lambda part: -int(part[1]))[:MAX_PARTS]
        return {str(name): int(size) for name, size in parts}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
