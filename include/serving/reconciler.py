"""Make a serving node serve what the routing rows say.

Three loops, none of which waits for another. *Apply* (here) follows the rows and swaps among the
models that are loaded: a swap is one reference, and waits for nothing. *Load* (`model_states`) is a
task a model version. *Report* (`reports`) tells the records how far the node is. Whatever fails on
the way, what answers goes on answering.

"Cannot be read" is never "is gone": a use case is removed only where the records say that it was
reset. Where the records cannot be reached at a start, the rows of the last time are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from include.config.settings import Settings
from include.deployment.description import Description
from include.errors import EvergreenError, Unavailable
from include.features.online_stores import open_store
from include.predictions.log import recover
from include.records.records import Model, Records, RoleReport, Route, ServingRow, ServingRows
from include.serving import features_check
from include.serving.app import App
from include.serving.journal import Journal
from include.serving.loops import News, keep_going
from include.serving.model_states import ModelStates
from include.serving.reports import Reporter, health_of_roles, role_reports
from include.serving.row_source import RowSource
from include.serving.snapshot import Loaded, Served
from include.serving.swap import (
    ROLES,
    Followed,
    describe,
    log_swap,
    open_online,
    snapshot,
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
    ) -> None:
        """Build it.

        `node` is the name it reports under, `boot` names this start of it; `swapped` is called
        after each load. `journal` holds what is not served whatever the rows say.
        """
        self._journal = journal
        self._settings, self._app, self._swapped = settings, app, swapped
        self._workers = workers or Workers()
        self._records = Records.open(settings.records_address)
        self._reporter = Reporter(
            self._records, self._workers, node, boot, note=lambda: app.table.restart
        )
        self._followed: dict[str, Followed] = {}
        self._source = RowSource(
            settings,
            self._records,
            self._workers,
            app,
            known=lambda: tuple(self._followed),
            follow=self.follow,
        )
        self._news = News()
        app.table.roles = self.roles

    async def run(self) -> None:
        """Follow the records and report, until cancelled."""
        failed = self._app.metrics.count_failed_loop
        async with asyncio.TaskGroup() as loops:
            loops.create_task(keep_going("rows", self._source.turn, failed))
            loops.create_task(keep_going("report", self._reporter.turn, failed))

    async def ready_to_serve(self, seconds: float) -> None:
        """Wait until each champion is loaded, refused or could not be, at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._source.looked.wait()

        def is_settled() -> bool:
            return not any(
                one.role == "champion" and one.state == "loading"
                for name in self._followed
                for one in self._reports(name)
            )

        await self._news.until(is_settled, seconds)

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

    # apply: what is wanted, and who answers

    def follow(self, rows: ServingRows) -> None:
        """Take over rows that were read; whose row is missing without a reset goes on as it is."""
        for name in rows.removed & self._followed.keys():
            self._forget(name)
        for row in rows.rows:
            name, followed = row.route.use_case, self._followed.get(row.route.use_case)
            if followed is None:
                self._begin(row)
            elif row.route.generation < followed.row.route.generation:
                self._go_back(followed, row)
            else:
                followed.lower_since = 0.0
                if followed.row != row:
                    self._take_over(followed, row)
            if (followed := self._followed.get(name)) is not None:
                followed.online.refresh()
        self._app.table.started = True
        self._app.table.source = "records"
        self._news.tell()

    def _begin(self, row: ServingRow) -> None:
        name = row.route.use_case
        try:
            description = Description.read(name, row.route.description)
        except EvergreenError as error:
            log.warning("%s is not followed: %s", name, error)
            return
        followed = Followed(
            row,
            description,
            open_online(self._settings, name, self._app.metrics.count_event),
            ModelStates(
                self._settings.home,
                self._workers,
                changed=lambda: self.apply(name),
                loaded=self._swapped,
                check=lambda loaded: self._check_features(name, loaded),
            ),
        )
        # A segment that a dead process left open is closed before the first line of this one.
        recover(self._settings.home, name)
        self._followed[name] = followed
        self._reporter.follow(name, lambda: (followed.row.route.generation, self._reports(name)))
        self._want(followed)
        self.apply(name)

    def _go_back(self, followed: Followed, row: ServingRow) -> None:
        """Follow a row whose generation is lower than before, once it is not merely an old one.

        Who answers goes on until the row's own model can.
        """
        if followed.stays_lower(asyncio.get_running_loop().time()):
            log.warning(
                "%s: the routing row is at generation %d, after %d: reset or restored",
                followed.use_case.name,
                row.route.generation,
                followed.row.route.generation,
            )
            self._take_over(followed, row)

    def _take_over(self, followed: Followed, row: ServingRow) -> None:
        name = row.route.use_case
        is_new = followed.row.route.generation != row.route.generation
        if followed.row.route.description != row.route.description:
            try:
                followed.use_case = Description.read(name, row.route.description)
                followed.problem = ""
            except EvergreenError as error:
                followed.problem = f"description: {error}"
        followed.row = row
        self._want(followed)
        if is_new:  # whoever changed the row asks for another try of what could not be done
            followed.models.try_again(refused=False)
        self.apply(name)

    def _want(self, followed: Followed) -> None:
        row, present = followed.row, self._app.table.served.get(followed.use_case.name)
        wanted = {role: model for role in ROLES if (model := row.model(role)) is not None}
        # Who answers stays until somebody else can.
        also = [present.answering.version] if present and present.answering else []
        followed.models.want(wanted, also)

    def apply(self, name: str) -> None:
        """Swap in what the row says, as far as it is loaded; waits for nothing."""
        followed = self._followed.get(name)
        if followed is None:
            return
        present = self._app.table.served.get(name)
        taken = self._journal.digests(name) if self._journal else frozenset()
        said = [f"{one.role}: {one.reason}" for one in self._reports(name) if one.reason]
        if taken:
            said.append("a rollback of this node is not in the records yet")
        if self._journal and self._journal.damage:
            said.append(self._journal.damage)
        served = snapshot(followed, present, taken, said)
        if served != present:
            self._app.install(served)
            log_swap(present, served)
            if served.standby is None:  # who answered until now may end
                self._want(followed)
        self._reporter.tell()
        self._news.tell()

    def _forget(self, name: str) -> None:
        log.warning("%s was reset: it is served no more", name)
        followed = self._followed.pop(name)
        self._app.forget(name)
        self._reporter.forget(name)
        followed.models.want({})
        followed.online.close()
        self._news.tell()

    # what a challenger must have, and how far all is

    async def _check_features(self, name: str, loaded: Loaded) -> None:
        """Refuse a challenger whose features are not online, as far as its use case keeps any.

        Raises:
            Unavailable: they are not, or not for enough entities, or their rows are not scored.
        """
        followed = self._followed[name]
        champion = followed.row.model("champion")
        await features_check.check_challenger(
            open_store(self._settings, name),
            self._workers,
            followed.use_case,
            champion.feature_set if champion else None,
            loaded,
        )

    def _reports(self, name: str) -> list[RoleReport]:
        followed = self._followed[name]
        served = self._app.table.served.get(name) or Served(followed.use_case)
        return role_reports(followed.row, followed.models, served)

    def roles(self, name: str) -> Mapping[str, object]:
        """Return how far the model of each role is, for the health page."""
        return health_of_roles(self._reports(name)) if name in self._followed else {}

    # what people ask for

    def take_route(self, route: Route) -> None:
        """Apply a routing row that this very process has just changed, without reading it again."""
        followed = self._followed.get(route.use_case)
        if followed is None or followed.row.route.generation >= route.generation:
            return
        # Models that the row did not name before come with the next look, which is due now.
        self._take_over(followed, replace(followed.row, route=route))
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
        taken = self._journal.digests(name) if self._journal else frozenset()
        return way_back(followed, self._app.table.served.get(name), taken)

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
            "admin", self._records.serving_rows, (name,), self._source.head
        )
        self.follow(rows)

        def is_settled() -> bool:
            return name not in self._followed or not any(
                one.state == "loading" for one in self._reports(name) if one.role != "challenger"
            )

        if not await self._news.until(is_settled, SETTLE_SECONDS):
            raise Unavailable(f"{name} is still being loaded; see the node's log")
        return describe(self._app.table.find(name))
