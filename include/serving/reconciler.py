"""Make a serving node serve what the routing rows say.

Loops, none of which waits for another. *Apply* (`following`) follows the rows and swaps among the
models that are loaded: a swap is one reference, and waits for nothing. *Load* (`model_states`) is a
task a model version. *Report* (`reports`) tells the records how far the node is. *Release*
(`release_watch`) takes a challenger's traffic home where its judge is not heard. Whatever fails on
the way, what answers goes on answering.

"Cannot be read" is never "is gone": a use case is removed only where the records say that it was
reset. Where the records cannot be reached at a start, the rows of the last time are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from include.config.settings import Settings
from include.errors import EvergreenError, Unavailable
from include.records.records import Model, Records, Route
from include.serving.app import App
from include.serving.following import Following
from include.serving.journal import Journal
from include.serving.loops import News, keep_going
from include.serving.release_watch import Guard
from include.serving.reports import Reporter
from include.serving.row_source import RowSource
from include.serving.swap import (
    describe,
    way_back,
)
from include.serving.workers import Workers

log = logging.getLogger(__name__)

SWAP_SECONDS = 1.0  # for so long a rollback waits for its swap before it answers that it goes on
SETTLE_SECONDS = 60.0  # for so long a reload waits for what it loads


class Reconciler:
    """Keeps an `App` in line with the records; all its state belongs to the event loop."""

    def __init__(
        self,
        settings: Settings,
        app: App,
        *,
        node: str,
        boot: str = "",
        workers: Workers | None = None,
        swapped: Callable[[], object] = lambda: None,
        journal: Journal | None = None,
        guard: Guard = lambda use_case, release: "",
    ) -> None:
        """Build it.

        `node` is the name it reports under, `boot` names this start of it; `swapped` is called
        after each load. `journal` holds what is not served whatever the rows say; `guard` tells why
        this node has taken the traffic of a release home by itself.
        """
        self._app = app
        self._workers = workers or Workers()
        self._records = Records.open(settings.records_address, pool=settings.database_pool)
        self._reporter = Reporter(
            self._records, self._workers, node, boot, note=lambda: app.table.restart
        )
        self._news = News()
        self._following = Following(
            settings,
            app,
            workers=self._workers,
            reporter=self._reporter,
            swapped=swapped,
            journal=journal,
            guard=guard,
            news=self._news,
        )
        self._followed = self._following.by_name
        self._source = RowSource(
            settings,
            self._records,
            self._workers,
            app,
            known=lambda: tuple(self._followed),
            follow=self._following.follow,
        )
        self.follow, self.apply = self._following.follow, self._following.apply
        self.roles = app.table.roles = self._following.roles
        self.take_keys = self._following.take_keys

    async def run(self) -> None:
        """Follow the records and report, until cancelled."""
        failed = self._app.metrics.count_failed_loop
        async with asyncio.TaskGroup() as loops:
            loops.create_task(keep_going("rows", self._source.turn, failed))
            loops.create_task(keep_going("report", self._reporter.turn, failed))
            loops.create_task(keep_going("release", self._following.look_at_releases, failed))

    async def ready_to_serve(self, seconds: float) -> None:
        """Wait until each champion is loaded, refused or could not be, at most so many seconds.

        So long the stores of online features are waited for too, until each has answered or did
        not: the first request by entity would find no connection.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._source.looked.wait()

        def is_settled() -> bool:
            return not any(
                one.role == "champion" and one.state == "loading"
                for name in self._followed
                for one in self._following.reports(name)
            )

        await self._news.until(is_settled, seconds)
        stores = [one.online for one in self._followed.values()]
        tried = [store.tried.wait() for store in stores if store.is_remote]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*tried)

    async def close(self) -> None:
        """End the models' processes, and report that this node serves no more."""
        for followed in self._followed.values():
            followed.models.close()
            followed.online.close()
        try:
            async with asyncio.timeout(2.0):
                await self._reporter.stop()
        except (EvergreenError, TimeoutError) as error:
            log.warning("that this node stops could not be recorded: %s", error)
        self._source.close()
        self._workers.close()

    # what people ask for

    def take_route(self, route: Route) -> None:
        """Apply a routing row that this very process has just changed, without reading it again."""
        followed = self._followed.get(route.use_case)
        if followed is None:
            return
        if followed.row.route.generation >= route.generation:
            # It may count in an epoch that this node has not read yet.
            self._source.look_now()
            return
        # Models that the row did not name before come with the next look, which is due now.
        self._following.take_over(followed, replace(followed.row, route=route), followed.epoch)
        self._source.look_now()

    @property
    def is_following(self) -> bool:
        """Whether the records can be read at present."""
        return self._app.table.healthy

    def way_back(self, name: str) -> tuple[Model | None, Model | None, int]:
        """Return the champion that this node serves, the one before it if it is in memory, and the
        generation of the row that was read last.

        Raises:
            Unavailable: the use case is not followed.
        """
        followed = self._followed.get(name)
        if followed is None:
            raise Unavailable(f"{name} is not followed yet; try again in a second")
        served = self._app.table.served.get(name)
        return way_back(followed, served, self._following.taken(name))

    def challenger_of(self, name: str) -> Model | None:
        """Return the challenger that the row names, unless this node has taken it back."""
        model = self._followed[name].row.model("challenger")
        taken = self._following.taken(name)
        return None if model is None or model.model_digest in taken else model

    @property
    def models(self) -> list[Model]:
        """The models that the rows name, and those that are not ended yet."""
        return [model for one in self._followed.values() for model in one.models.models]

    def epoch_of(self, name: str) -> int:
        """Return which life of the records this node follows for a use case."""
        return self._followed[name].epoch

    def describe(self, name: str) -> dict[str, Any]:
        """Return what is served of a use case.

        Raises:
            Refusal: it is not served.
        """
        return {"settled": True, **describe(self._app.table.find(name))}

    async def served_of(self, name: str, generation: int, *, seconds: float) -> dict[str, Any]:
        """Wait until a generation is served, not longer than so many seconds; return what is.

        `settled` says that the champion of that generation, or of a later one, answers.
        """

        def is_settled() -> bool:
            served = self._app.table.served.get(name)
            return served is None or (
                served.generation >= generation and served.champion is not None
            )

        await self._news.until(is_settled, seconds)
        served = self._app.table.find(name)
        return {"settled": is_settled(), **describe(served)}

    async def reload(self, name: str) -> dict[str, Any]:
        """Read a use case's row again now, try again what failed, and return what is served then.

        Raises:
            Unavailable: the use case is not followed yet, or its model loads for too long.
            Refusal: the use case was removed meanwhile.
        """
        followed = self._followed.get(name)
        if followed is None:
            raise Unavailable(f"{name} is not followed yet; try again in a second")
        followed.models.try_again(refused=True)
        rows = await self._workers.run(
            "admin",
            self._records.serving_rows,
            (name,),
            self._source.head,
            self._source.epoch,
        )
        self.follow(rows)

        def is_settled() -> bool:
            return name not in self._followed or not any(
                one.state == "loading"
                for one in self._following.reports(name)
                if one.role != "challenger"
            )

        if not await self._news.until(is_settled, SETTLE_SECONDS):
            raise Unavailable(f"{name} is still being loaded; see the node's log")
        return describe(self._app.table.find(name))
