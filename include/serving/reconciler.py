"""Make a serving node serve what the routing rows say, and report what it serves.

The rows are polled. A model that a row names is verified by digest, tried in a child process with
its golden rows, loaded beside the present one (`model_loader`), and swapped in by one reference.
Whatever fails on the way, the present model keeps answering, and the node reports why.

One task polls the records; each use case has a worker task of its own, so that a model which loads
slowly holds up no other use case.
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
RETRY_SECONDS = 10.0  # until what failed is tried again, and the records are read without a change
BEAT_SECONDS = 20.0  # a third of what makes a node count as silent (rollout.NODE_SILENT_SECONDS)
_ROLES = ("champion", "previous", "challenger")


@dataclass(frozen=True, slots=True)
class Desired:
    """What a use case's rows say at one moment.

    A full state, never a step: between two polls any number of rows may have been written.
    """

    use_case: UseCase
    route: Route
    models: Mapping[int, Model]


@dataclass
class _Worker:
    """The part of the reconciler that looks after one use case; times are monotonic seconds.

    `settled` says that what is desired is served, without a problem.
    """

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

    def is_due(self, now: float) -> bool:
        """Tell whether to wake up although nothing changed: to try again, or as a sign of life."""
        return now >= (self.reported_at + BEAT_SECONDS if self.settled else self.retry_at)

    def stop(self) -> None:
        """End the task and, a little later, the models' processes: requests in hand use them."""
        if self.task is not None:
            self.task.cancel()
        self.models.keep(())
        self.online.close()
        self.done.set()  # whoever waits for a reload learns that there is nothing to wait for


class Reconciler:
    """Keeps an `App` in line with the records.

    All its state belongs to the event loop; only what waits is done in threads.
    """

    def __init__(
        self,
        settings: Settings,
        app: App,
        *,
        node: str,
        swapped: Callable[[], object] = lambda: None,
    ) -> None:
        """Build it; `node` is the name it reports under, `swapped` is called after each load."""
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
                    self._follow(await asyncio.to_thread(self._read))
                    self._app.table.started = True
                self._log_problem("")
            except (EvergreenError, SQLAlchemyError) as error:
                self._log_problem(str(error))
                self._watch.close()
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._forced.wait()
            except TimeoutError:
                pass

    async def reload(self, name: str) -> dict[str, Any]:
        """Look at a use case again now, and return what is served when that is done.

        Raises:
            Unavailable: the use case is not followed yet, or its model loads for too long.
            Refusal: the use case was removed meanwhile.
        """
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
        served = self._app.table.find(name)
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
        desired_states = []
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
            on_record = {version: model for version, model in models.items() if model}
            desired_states.append(Desired(use_case, route, on_record))
        return desired_states

    def _follow(self, desired_states: Sequence[Desired]) -> None:
        """Hand each worker what is desired now; start workers of new use cases, end the others."""
        names = {desired.use_case.name for desired in desired_states}
        for name in self._workers.keys() - names:
            self._app.forget(name)
            self._workers.pop(name).stop()
        for desired in desired_states:
            name = desired.use_case.name
            worker = self._workers.get(name)
            if worker is None:
                self._workers[name] = self._start_worker(desired)
                continue
            if worker.task is not None and worker.task.done():
                log.error(
                    "%s: its worker died and is started again",
                    name,
                    exc_info=worker.task.exception(),
                )
                worker.task = asyncio.create_task(self._run_worker(name, worker))
            if worker.desired != desired or worker.is_due(time.monotonic()):
                # Whoever changed the row asks for another try of what failed before.
                if worker.desired.route.generation != desired.route.generation:
                    worker.models.try_again(failed_only=True)
                worker.desired = desired
                worker.wake.set()
            worker.online.refresh()

    def _start_worker(self, desired: Desired) -> _Worker:
        name = desired.use_case.name
        online = Online(self._settings.home / "online" / f"{name}.db")
        wake = asyncio.Event()
        models = ModelLoader(self._settings.home, changed=wake.set, loaded=self._swapped)
        worker = _Worker(online, desired, models, wake)
        self._app.install(Served(desired.use_case, online))
        worker.task = asyncio.create_task(self._run_worker(name, worker))
        worker.wake.set()
        return worker

    async def _run_worker(self, name: str, worker: _Worker) -> None:
        """Serve what is desired, whenever that changes; first close a dead process's log."""
        await asyncio.to_thread(recover, self._settings.home, name)
        while True:
            await worker.wake.wait()
            # Cleared before the desired state is read: a change in between wakes it once more.
            worker.wake.clear()
            desired, worker.settled = worker.desired, False
            worker.retry_at = time.monotonic() + RETRY_SECONDS
            try:
                await self._reconcile(name, worker, desired)
                # Loading takes seconds: by now something else may be desired.
                worker.settled = (
                    worker.desired is desired and not self._app.table.served[name].problems
                )
            except EvergreenError as error:
                log.warning("%s: %s", name, error)
            worker.done.set()

    # what is served

    async def _reconcile(self, name: str, worker: _Worker, desired: Desired) -> None:
        """Load what is wanted, swap it in, try what may come next, report."""
        route, problems = desired.route, list[str]()
        champion = await self._load_role(worker, desired, "champion", problems)
        previous = await self._load_role(worker, desired, "previous", problems)
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
            trial_state = await self._try_challenger(worker, desired, route.challenger, problems)
            state = state if refused else trial_state
            if problems != list(served.problems):
                present, served = served, replace(served, problems=tuple(problems))
                self._install(name, present, served)
        worker.models.keep(
            [model.version for model in (served.champion, served.previous) if model is not None]
        )
        await self._report(name, worker, desired, served, state)

    def _install(self, name: str, present: Served, served: Served) -> None:
        """Swap a snapshot in, if it differs from the present one."""
        if served != present:
            self._app.install(served)
        new = served.champion
        if new is not None and new is not present.champion:
            log.info("%s: model %d answers (generation %d)", name, new.version, served.generation)

    async def _try_challenger(
        self, worker: _Worker, desired: Desired, version: int, problems: list[str]
    ) -> str:
        """Return how far the trial of the challenger is: loading, ready or failed.

        Nobody waits for it; its end wakes the worker.
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

    async def _load_role(
        self, worker: _Worker, desired: Desired, role: str, problems: list[str]
    ) -> Loaded | None:
        """Return the model of a role, or None; why it is not loaded is added to `problems`."""
        version = getattr(desired.route, role)
        if version is None:
            return None
        try:
            await worker.models.load(_model(desired, version))
        except EvergreenError as error:
            problems.append(f"{role}: {error}")
            log.error("%s: %s is not loaded: %s", desired.use_case.name, role, error)
        return worker.models.get(version)

    # what is reported

    async def _report(
        self, name: str, worker: _Worker, desired: Desired, served: Served, state: str
    ) -> None:
        """Record what is served, if it is news or a sign of life is due."""
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

    def _log_problem(self, problem: str) -> None:
        """Log a problem with the records once, and its end ("")."""
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
