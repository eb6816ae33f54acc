"""The use cases that a node follows: their rows, the models that these want, and who answers.

A swap is one reference: it waits for nothing, and for no model that is on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from include.artefacts.store import ArtefactStore
from include.config.settings import Settings
from include.deployment.description import Description
from include.errors import EvergreenError
from include.features.online_stores import open_store
from include.models.public_keys import KeyRing
from include.models.signing import verify_by_folder
from include.predictions.log import recover
from include.records.records import RoleReport, ServingRow, ServingRows
from include.serving import features_check
from include.serving.app import App
from include.serving.journal import Journal
from include.serving.loops import News
from include.serving.model_states import ModelStates
from include.serving.release_watch import LOOK_SECONDS, Guard, ReleaseWatch
from include.serving.reports import Reporter, health_of_roles, role_reports
from include.serving.snapshot import Loaded, Served
from include.serving.swap import (
    ROLES,
    Followed,
    log_swap,
    open_online,
    released,
    snapshot,
)
from include.serving.workers import Workers

log = logging.getLogger(__name__)


class Following:
    """Takes rows over and swaps among the models that are loaded; belongs to the event loop."""

    def __init__(
        self,
        settings: Settings,
        app: App,
        *,
        workers: Workers,
        reporter: Reporter,
        swapped: Callable[[], object],
        journal: Journal | None,
        guard: Guard,
        news: News,
    ) -> None:
        """Build it; `news` is told whenever something may have changed.

        The other arguments are those of the `Reconciler`.
        """
        self._settings, self._app, self._swapped = settings, app, swapped
        self._workers, self._reporter, self._news = workers, reporter, news
        self._journal, self._guard = journal, guard
        self.by_name: dict[str, Followed] = {}
        self._revoked: frozenset[str] = frozenset()

    def taken(self, name: str) -> frozenset[str]:
        """Return the digests that a rollback of this node has taken back, whatever the row says."""
        return self._journal.digests(name) if self._journal else frozenset()

    def follow(self, rows: ServingRows, source: str = "records") -> None:
        """Take over rows that were read; whose row is missing without a reset goes on as it is.

        `source` is records or file, which has the rows of the last time.
        """
        for name in rows.removed & self.by_name.keys():
            self._forget(name)
        for row in rows.rows:
            name, followed = row.route.use_case, self.by_name.get(row.route.use_case)
            if followed is None:
                followed = self._begin(row, rows.epoch)
            elif followed.is_behind(rows.epoch, row.route.generation):
                self._go_back(followed, row, rows.epoch)
            else:
                followed.lower_since = 0.0
                if followed.row != row or followed.epoch != rows.epoch:
                    self.take_over(followed, row, rows.epoch)
            if followed is not None:
                followed.online.refresh()
                if source == "records":
                    self._hear(followed, row, rows.epoch)
        self._app.table.started = True
        self._app.table.source = source
        self._news.tell()

    def _hear(self, followed: Followed, row: ServingRow, epoch: int) -> None:
        """Take over the beat of a row, and swap if that changes what the challenger gets."""
        followed.watch.hear(row.beat, epoch)
        self._swap_release(followed)

    def _swap_release(self, followed: Followed) -> None:
        present = self._app.table.served.get(followed.use_case.name)
        now = released(followed, self.taken(followed.use_case.name))
        if present is None or present.release != now:
            self.apply(followed.use_case.name)

    async def look_at_releases(self) -> None:
        """Wait a moment, then take traffic home where a judge is not heard any more."""
        await asyncio.sleep(LOOK_SECONDS)
        for followed in self.by_name.values():
            self._swap_release(followed)

    def _begin(self, row: ServingRow, epoch: int) -> Followed | None:
        name = row.route.use_case
        try:
            description = Description.read(name, row.route.description)
        except EvergreenError as error:
            log.warning("%s is not followed: %s", name, error)
            return None
        followed = Followed(
            row,
            description,
            open_online(self._settings, name, self._app.metrics.count_event),
            ModelStates(
                ArtefactStore.of(self._settings),
                self._workers,
                partial(verify_by_folder, self._settings.signing_keys_folder),
                changed=lambda: self.apply(name),
                loaded=self._swapped,
                check=lambda loaded: self._check_features(name, loaded),
            ),
            epoch=epoch,
            watch=ReleaseWatch(name, guard=self._guard, hasher=self._app.hasher),
        )
        # A segment that a dead process left open is closed before the first line of this one.
        recover(self._settings.home, name)
        self.by_name[name] = followed
        self._reporter.follow(name, lambda: (followed.row.route.generation, self.reports(name)))
        self._want(followed)
        self.apply(name)
        return followed

    def _go_back(self, followed: Followed, row: ServingRow, epoch: int) -> None:
        """Follow a row of an earlier state than before, once it is not merely an old one.

        Who answers goes on until the row's own model can.
        """
        if followed.stays_lower(asyncio.get_running_loop().time()):
            log.warning(
                "%s: the routing row is at generation %d of epoch %d, after %d of %d: reset, or "
                "the database was replaced",
                followed.use_case.name,
                row.route.generation,
                epoch,
                followed.row.route.generation,
                followed.epoch,
            )
            self.take_over(followed, row, epoch)

    def take_over(self, followed: Followed, row: ServingRow, epoch: int) -> None:
        """Follow a row from now on."""
        name = row.route.use_case
        is_new = (followed.epoch, followed.row.route.generation) != (epoch, row.route.generation)
        if epoch > followed.epoch:
            log.warning(
                "%s: the records were restored: generation %d of epoch %d follows %d of %d",
                name,
                row.route.generation,
                epoch,
                followed.row.route.generation,
                followed.epoch,
            )
        followed.epoch = epoch
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
        followed = self.by_name.get(name)
        if followed is None:
            return
        present = self._app.table.served.get(name)
        taken = self.taken(name)
        said = [f"{one.role}: {one.reason}" for one in self.reports(name) if one.reason]
        if taken:
            said.append("a rollback of this node is not in the records yet")
        if self._journal and self._journal.damage:
            said.append(self._journal.damage)
        served = snapshot(followed, present, taken, said, self._revoked)
        if served != present:
            self._app.install(served)
            log_swap(present, served)
            if served.standby is None:  # who answered until now may end
                self._want(followed)
        self._reporter.tell()
        self._news.tell()

    def _forget(self, name: str) -> None:
        log.warning("%s was reset: it is served no more", name)
        followed = self.by_name.pop(name)
        self._app.forget(name)
        self._reporter.forget(name)
        followed.models.want({})
        followed.online.close()
        self._news.tell()

    def take_keys(self, ring: KeyRing) -> None:
        """Believe the keys of now: end what is revoked, and try again what was refused."""
        self._revoked = frozenset(ring.revoked)
        for name, followed in list(self.by_name.items()):
            followed.models.try_again(refused=True)
            followed.models.refuse_keys(self._revoked)
            self.apply(name)

    # what a challenger must have, and how far all is

    async def _check_features(self, name: str, loaded: Loaded) -> None:
        """Refuse a challenger whose features are not online, as far as its use case keeps any.

        Raises:
            Unavailable: they are not, or not for enough entities, or their rows are not scored.
        """
        followed = self.by_name[name]
        champion = followed.row.model("champion")
        await features_check.check_challenger(
            open_store(self._settings, name),
            self._workers,
            followed.use_case,
            champion.feature_set if champion else None,
            loaded,
        )

    def reports(self, name: str) -> list[RoleReport]:
        followed = self.by_name[name]
        served = self._app.table.served.get(name) or Served(followed.use_case)
        release = released(followed, self.taken(name))
        withheld = release.why if release else ""
        return role_reports(followed.row, followed.models, served, withheld)

    def roles(self, name: str) -> Mapping[str, object]:
        """Return how far the model of each role is, for the health page."""
        return health_of_roles(self.reports(name)) if name in self.by_name else {}
