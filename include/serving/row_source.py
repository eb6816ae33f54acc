"""Where a node's rows come from: the records, or, until they are reached, the last time's file."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from sqlalchemy.exc import SQLAlchemyError

from include.config.settings import Settings
from include.errors import EvergreenError
from include.records.records import Records, ServingRows
from include.serving.app import App
from include.serving.last_rows import LastRows
from include.serving.records_watch import Watch
from include.serving.workers import Workers

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
RETRY_SECONDS = 10.0  # until the records are read although nothing says that they have changed


class RowSource:
    """Reads the rows whenever they may have changed, and hands them to `follow`.

    `known` tells which use cases are followed: only the records say that one of them was removed.
    `follow` is told where its rows come from: `records` or `file`.
    """

    def __init__(
        self,
        settings: Settings,
        records: Records,
        workers: Workers,
        app: App,
        *,
        known: Callable[[], Collection[str]],
        follow: Callable[[ServingRows, str], None],
    ) -> None:
        self._records, self._workers, self._app = records, workers, app
        self._known, self._follow = known, follow
        self._watch = Watch(settings.records_address)
        self._last = LastRows(settings.home / "serving" / f"rows-{settings.node_port}.json")
        self._problem, self._refresh_at = "", 0.0
        self.head = 0  # the audit log's, when the rows were read last, and their epoch
        self.epoch: int | None = None
        self.looks = 0  # at the rows, as far as they could be read
        self._forced = asyncio.Event()
        self.looked = asyncio.Event()  # the records were read once, or could not be

    def look_now(self) -> None:
        """Read the rows at the next turn, which begins now."""
        self._forced.set()

    def close(self) -> None:
        """Look no more."""
        self._watch.close()

    async def turn(self) -> None:
        """Read the rows if they may have changed, apply them, and wait for the next look."""
        forced, now = self._forced.is_set(), time.monotonic()
        self._forced.clear()
        try:
            moved = await self._workers.run("rows", self._watch.moved)
            if moved or forced or now >= self._refresh_at:
                self._refresh_at = time.monotonic() + RETRY_SECONDS
                rows = await self._workers.run(
                    "rows", self._records.serving_rows, self._known(), self.head, self.epoch
                )
                self._follow(rows, "records")
                self.head, self.epoch, self.looks = rows.head, rows.epoch, self.looks + 1
                await self._workers.run("rows", self._keep, rows)
            self._answered("")
        except (EvergreenError, SQLAlchemyError) as error:
            self._refresh_at = 0.0
            self._watch.close()
            self._answered(str(error))
            await self._start_from_file()
        self.looked.set()
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._forced.wait()
        except TimeoutError:
            pass

    async def _start_from_file(self) -> None:
        """Serve the rows of the last time, where this start has read none yet."""
        if self._app.table.started:
            return
        last = await self._workers.run("rows", self._last.read)
        if last.rows:
            log.warning("the rows of the last time are served, from %s", self._last.path)
            self._follow(last, "file")
            self.head, self.epoch = last.head, last.epoch
            self._app.metrics.show_records(reachable=False, from_file=True)

    def _keep(self, rows: ServingRows) -> None:
        try:
            self._last.write(rows)
        except OSError as error:
            log.warning("the rows that are served cannot be kept in %s: %s", self._last.path, error)

    def _answered(self, problem: str) -> None:
        """Log a problem with the records once, and its end ("")."""
        if problem != self._problem:
            if problem:
                log.warning("the records cannot be followed: %s; what is served goes on", problem)
            else:
                log.info("the records are followed again")
        self._problem = problem
        self._app.table.healthy = not problem
        if not problem or self._app.table.source == "records":
            self._app.metrics.show_records(reachable=not problem, from_file=False)
