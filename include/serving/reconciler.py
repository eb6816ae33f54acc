"""Make a serving node serve what the routing rows say, and report what it serves.

The rows are polled. A model that a row names is verified by digest, tried in a child process with
its golden rows, loaded beside the present one (`model_loader`), and swapped in by one reference.
Whatever fails on the way, the present model keeps answering, and the node reports why.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from include.clock import utc_now
from include.config import use_case_file
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import ArtefactError, EvergreenError, Unavailable
from include.predictions.log import recover
from include.records.records import Model, Records, Route
from include.serving.app import App
from include.serving.model_loader import TRIAL_SECONDS, ModelLoader
from include.serving.records_watch import Watch
from include.serving.snapshot import Loaded, Online, Served

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
RETRY_SECONDS = 10.0
BEAT_SECONDS = 20.0
_ROLES = ("champion", "previous", "challenger")


@dataclass(frozen=True, slots=True)
class Desired:
    """What a use case's rows say at one moment: a full state, never a step."""

    use_case: UseCase
    route: Route
    models: Mapping[int, Model]


@dataclass
class _Worker:
    """The part of the reconciler that looks after one use case."""

    online: Online
    desired: Desired
    models: ModelLoader
    wake: asyncio.Event
    done: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    settled: bool = False
    reported: tuple[object, ...] = ()
    reported_at: float = 0.0
    retry_at: float = 0.0

    def due(self, now: float) -> bool:
        """Whether there is something to do although nothing changed: try again, or give a sign
        of life.
        """
        return now >= (self.reported_at + BEAT_SECONDS if self.settled else self.retry_at)


class Reconciler:
    """Keeps an `App` in line with the records; all its state belongs to the event loop, only
    waiting is done in threads.
    """

    def __init__(
        self,
        settings: Settings,
        app: App,
        *,
        node: str,
        swapped: Callable[[], object] = lambda: None,
    ) -> None:
        """Build it; `swapped` is called whenever a model was loaded."""
        self._settings, self._app, self.node, self._swapped = settings, app, node, swapped
        self._records = Records.open(settings.records_address)
        self._watch = Watch(settings.records_address)
        self._workers: dict[str, _Worker] = {}
        self._problem = ""
        self._forced = asyncio.Event()

    async def run(self) -> None:
        """Follow the records until cancelled."""
        refresh_at = 0.0
        while True:
            forced, now = self._forced.is_set(), time.monotonic()
            self._forced.clear()
            try:
                if await asyncio.to_thread(self._watch.moved) or forced or now >= refresh_at:
                    refresh_at = time.monotonic() + RETRY_SECONDS
                    self._spread(await asyncio.to_thread(self._read))
                    self._app.table.started = True
                self._say("")
            except (EvergreenError, SQLAlchemyError) as error:
                self._say(str(error))
                self._watch.close()
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._forced.wait()
            except TimeoutError:
                pass

    async def reload(self, name: str) -> dict[str, Any]:
        """Look at a use case again now, and return what is served when that is done."""
        worker = self._workers.get(name)
        if worker is None:
            raise Unavailable(f"{name} is not followed yet; try again in a second")
        worker.settled, worker.retry_at = False, 0.0
        worker.models.try_again(failed_only=False)
        worker.done.clear()
        self._forced.set()
        worker.wake.set()
        try:
            async with asyncio.timeout(TRIAL_SECONDS):
                await worker.done.wait()
        except TimeoutError:
            raise Unavailable(f"{name} is still being loaded; see the node's log") from None
        served = self._app.table.served[name]
        return {
            "use_case": name,
            "generation": served.generation,
            "champion": served.champion.version if served.champion else None,
            "previous": served.previous.version if served.previous else None,
            "problems": list(served.problems),
        }

    async def close(self) -> None:
        """End the workers and their processes, and report that this node serves no more."""
        tasks = [worker.task for worker in self._workers.values() if worker.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name, worker in self._workers.items():
            worker.models.close()
            worker.online.close()
            try:
                await asyncio.to_thread(
                    self._observe, name, worker.desired.route.generation, "stopped", {}
                )
            except EvergreenError as error:
                log.warning("%s: that this node stops could not be recorded: %s", name, error)
        self._watch.close()

    # what is wanted

    def _read(self) -> list[Desired]:
        """Read every use case that has a file, with its routing row and the models it names."""
        found = []
        for path in use_case_file.files(self._settings.usecase_dirs):
            try:
                use_case = use_case_file.find(path.stem, self._settings.usecase_dirs)
            except EvergreenError as error:
                log.warning("%s is left out: %s", path.stem, error)
                continue
            route = self._records.routes.get(use_case.name)
            versions = {getattr(route, role) for role in _ROLES} - {None}
            models = {
                version: self._records.models.get(use_case.name, version) for version in versions
            }
            found.append(
                Desired(
                    use_case, route, {version: model for version, model in models.items() if model}
                )
            )
        return found

    def _spread(self, found: Sequence[Desired]) -> None:
        names = {desired.use_case.name for desired in found}
        for name in self._workers.keys() - names:
            worker = self._workers.pop(name)
            if worker.task is not None:
                worker.task.cancel()
            self._app.forget(name)
        for desired in found:
            name = desired.use_case.name
            known = self._workers.get(name)
            if known is None:
                online = Online(self._settings.home / "online" / f"{name}.db")
                wake = asyncio.Event()
                models = ModelLoader(self._settings.home, changed=wake.set, loaded=self._swapped)
                known = self._workers[name] = _Worker(online, desired, models, wake)
                self._app.install(Served(desired.use_case, online))
                known.task = asyncio.create_task(self._look_after(name, known))
                known.wake.set()
                continue
            if known.task is not None and known.task.done():
                log.error(
                    "%s: its worker died and is started again",
                    name,
                    exc_info=known.task.exception(),
                )
                known.task = asyncio.create_task(self._look_after(name, known))
            if known.desired != desired or known.due(time.monotonic()):
                if known.desired.route.generation != desired.route.generation:
                    known.models.try_again(failed_only=True)
                known.desired = desired
                known.wake.set()
            known.online.refresh()

    async def _look_after(self, name: str, worker: _Worker) -> None:
        await asyncio.to_thread(recover, self._settings.home, name)
        while True:
            await worker.wake.wait()
            worker.wake.clear()
            desired, worker.settled = worker.desired, False
            worker.retry_at = time.monotonic() + RETRY_SECONDS
            try:
                await self._reconcile(name, worker, desired)
                worker.settled = (
                    worker.desired is desired and not self._app.table.served[name].problems
                )
            except EvergreenError as error:
                log.warning("%s: %s", name, error)
            worker.done.set()

    # making it so

    async def _reconcile(self, name: str, worker: _Worker, desired: Desired) -> None:
        """Load what is wanted, swap it in, try what may come next, report."""
        route, problems = desired.route, list[str]()
        champion = await self._role(worker, desired, "champion", problems)
        previous = await self._role(worker, desired, "previous", problems)
        present = self._app.table.served[name]
        refused = route.champion is not None and champion is None
        if refused:  # what answers now goes on
            served = replace(present, use_case=desired.use_case, problems=tuple(problems))
            self._app.metrics.count_event(name, "model_refused")
        else:
            served = Served(
                desired.use_case,
                worker.online,
                route.generation,
                champion,
                previous,
                tuple(problems),
            )
        self._install(name, present, served)
        state = "failed" if refused else "serving"
        if route.challenger is not None:
            trial = await self._challenger(worker, desired, route.challenger, problems)
            state = state if refused else trial
            if problems != list(served.problems):
                present, served = served, replace(served, problems=tuple(problems))
                self._install(name, present, served)
        worker.models.keep(
            [model.version for model in (served.champion, served.previous) if model is not None]
        )
        await self._report(name, worker, desired, served, state)

    def _install(self, name: str, present: Served, served: Served) -> None:
        if served != present:
            self._app.install(served)
        new = served.champion
        if new is not None and new is not present.champion:
            log.info("%s: model %d answers (generation %d)", name, new.version, served.generation)

    async def _challenger(
        self, worker: _Worker, desired: Desired, version: int, problems: list[str]
    ) -> str:
        """Return how far the trial of the challenger is; nobody waits for it, its end wakes the
        worker.
        """
        try:
            trial = await worker.models.verified_trial(_model(desired, version))
            if not trial.done():
                return "loading"
            trial.result()
        except EvergreenError as error:
            problems.append(f"challenger: {error}")
            return "failed"
        return "ready"

    async def _role(
        self, worker: _Worker, desired: Desired, role: str, problems: list[str]
    ) -> Loaded | None:
        version = getattr(desired.route, role)
        if version is None:
            return None
        try:
            await worker.models.load(_model(desired, version))
        except EvergreenError as error:
            problems.append(f"{role}: {error}")
            log.error("%s: %s is not loaded: %s", desired.use_case.name, role, error)
        return worker.models.get(version)

    # telling

    async def _report(
        self, name: str, worker: _Worker, desired: Desired, served: Served, state: str
    ) -> None:
        route = desired.route
        detail = {
            "champion": served.champion.version if served.champion else None,
            "previous": served.previous.version if served.previous else None,
            "challenger": route.challenger,
            "problems": list(served.problems),
        }
        report, now = (route.generation, state, str(detail)), time.monotonic()
        if report == worker.reported and now < worker.reported_at + BEAT_SECONDS:
            return
        await asyncio.to_thread(self._observe, name, route.generation, state, detail)
        worker.reported, worker.reported_at = report, now

    def _observe(self, name: str, generation: int, state: str, detail: dict[str, Any]) -> None:
        self._records.nodes.observe(
            name, self.node, generation=generation, state=state, detail=detail, at=utc_now()
        )

    def _say(self, problem: str) -> None:
        """Log a problem with the records once, and its end."""
        if problem != self._problem:
            if problem:
                log.warning("the records cannot be followed: %s; what is served goes on", problem)
            else:
                log.info("the records are followed again")
        self._problem = problem
        self._app.table.healthy = not problem


def _model(desired: Desired, version: int) -> Model:
    model = desired.models.get(version)
    if model is None:
        raise ArtefactError(
            f"{desired.use_case.name} has no model version {version} on record; roll back, or "
            "train again"
        )
    return model
