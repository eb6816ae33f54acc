"""What `make run` does: start everything, load history, run the newest partition through Airflow,
answer a request.

Everything is re-used where it is there already: a second start only finds what is recorded, and
answers.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx

from include.clock import utc_now
from include.config.settings import Settings
from include.config.settings import settings as current_settings
from include.config.use_case import UseCase
from include.config.use_case_file import files, find
from include.errors import EvergreenError, Unavailable
from include.installation import preflight
from include.installation.environment import ensure_password
from include.installation.services import descriptions
from include.installation.supervisor import Stopped, Supervisor, migrate
from include.orchestration.airflow_api import ACTIVE, AirflowApi, Run
from include.pipeline import history, ranges
from include.pipeline.flow import STAGES
from include.point_in_time import partitions
from include.records.records import Records, StageResult

log = logging.getLogger(__name__)

DEFAULT_USE_CASE = "repayment"
POLL = 0.5
SCHEDULED_WITHIN = 20.0
STALLED_AFTER = 90.0
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
Say = Callable[[str], None]


class NotDeployed(EvergreenError):
    """The chain ended without a model that answers; the message says where and why."""


def say(text: str) -> None:
    """Write a line of progress."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run_main(use_case: str | None = None, once: bool = False, days: int = 0) -> int:
    """Run the main job; return the exit code.

    `once` stops everything after the answer; `days` backfills so many partitions before the newest.

    Raises: EvergreenError: something is in the way, with the remedy; whatever was started has been
        stopped.
    """
    began = time.monotonic()
    settings = current_settings()
    preflight.check(settings)
    described = find(use_case or DEFAULT_USE_CASE, settings.usecase_dirs)
    try:
        with Supervisor(settings, say=say) as supervisor:
            _bring_up(settings, supervisor)
            with AirflowApi(settings) as api:
                job = MainJob(settings, described, supervisor, api, days)
                if days or not job.is_on_record():
                    supervisor.wait_healthy(names=("api-server", "dag-processor"))
                    job.prepare()
                    job.load_history()
                    job.run_newest()
                    job.backfill()
                supervisor.wait_healthy(names=("node",))
                answer = job.predict()
                say(f"\n{_shown(answer)}\n\nall of it took {time.monotonic() - began:.0f} s")
                if once:
                    say("stopping")
                else:
                    supervisor.wait_healthy()
                    job.go_on()
                    _tell_addresses(settings)
                    supervisor.hold()
    except Stopped as stopped:
        say(f"{stopped}; everything that was started has ended")
        return 0 if not once else stopped.exit_code
    return 0


def _bring_up(settings: Settings, supervisor: Supervisor) -> None:
    say(f"starting Evergreen in {settings.home}")
    password = ensure_password(settings)
    migrate(settings, say=say)
    for line in upgraded(settings, utc_now()):
        say(f"  {line}")
    supervisor.start()
    if password is not None:
        say(
            f"  Airflow's user is `admin`, its password {password} (shown this once; later: "
            "`evergreen password`)"
        )


def upgraded(settings: Settings, now: datetime) -> list[str]:
    """Return what the next run of each use case computes again because rules, or the code behind
    them, have changed.
    """
    found = []
    for path in files(settings.usecase_dirs):
        try:
            use_case = find(path.stem, settings.usecase_dirs)
            newest = partitions.newest_complete(use_case, now)
            keys = (
                ranges.find_outdated("validate_data", use_case.name, newest, settings=settings)
                if newest
                else []
            )
        except EvergreenError:
            continue  # whoever runs it is told
        if keys:
            found.append(
                f"{use_case.name}: contract, SQL or code have changed since {len(keys)} "
                f"partitions were judged ({keys[0]} to {keys[-1]}); the next run judges them "
                "again first"
            )
    return found


def _tell_addresses(settings: Settings) -> None:
    say("")
    for name, address in descriptions(settings):
        say(f"  {name:<14} {address}")
    say("\nthe nightly run happens by itself; Ctrl-C stops everything")


class MainJob:
    """The main job of one use case, with everything started."""

    def __init__(
        self,
        settings: Settings,
        use_case: UseCase,
        supervisor: Supervisor,
        api: AirflowApi,
        days: int = 0,
    ) -> None:
        self.settings, self.use_case, self.supervisor, self.api = (
            settings,
            use_case,
            supervisor,
            api,
        )
        self.records = Records.open(settings.records_address)
        newest = partitions.newest_complete(use_case, utc_now())
        if newest is None:
            raise NotDeployed(
                f"{use_case.name} has no complete partition yet; its history begins on "
                f"{use_case.history.first}"
            )
        self.newest, self.before = newest, partitions.earlier(use_case, newest)
        first = use_case.history.first.isoformat()
        self.backfilled = (
            partitions.between(use_case, first, self.before)[-days:] if days and self.before else []
        )

    def dag(self, name: str) -> str:
        """Return the id of one of the use case's DAGs."""
        return f"{self.use_case.name}__{name}"

    def is_on_record(self) -> bool:
        """Say whether history and the newest partition are recorded to their ends, so that
        nothing needs Airflow first.
        """
        if not self._ends() or self._history_to_load():
            return False
        say(f"partition {self.newest} of {self.use_case.name} is on record: {self._told()}")
        return True

    def go_on(self) -> None:
        """Leave the nightly run to the scheduler."""
        self.api.pause(self.dag("ingest_data"), False)

    def prepare(self) -> None:
        """Wait until Airflow lists the use case's DAGs.

        Raises:
            Unavailable: it does not; the message has the import errors.
        """
        wanted = {self.dag(name) for name in (*STAGES, "load_history")}
        deadline = time.monotonic() + 90
        while missing := wanted - self.api.dag_ids(self.use_case.name):
            if time.monotonic() > deadline:
                problems = (
                    "; ".join(self.api.import_errors())
                    or "no import error is reported; see the dag-processor's log"
                )
                raise Unavailable(f"Airflow does not list {', '.join(sorted(missing))}: {problems}")
            self.supervisor.pause(POLL)

    def load_history(self) -> None:
        """Load what the trainings on these partitions look back on, and missed days, through
        `load_history`.
        """
        plan = self._history_to_load()
        if plan is None:
            return
        say(
            f"loading the history of {self.use_case.name}, {plan['ingest_data'][0]} to "
            f"{plan['ingest_data'][-1]}, in one pass"
        )
        run = self.api.trigger(
            self.dag("load_history"),
            conf={
                "first": plan["materialize_features"][0],
                "last": plan["materialize_features"][-1],
            },
        )
        self.api.pause(self.dag("load_history"), False)
        self._follow_tasks(run)

    def _history_to_load(self) -> dict[str, list[str]] | None:
        if self.before is None:
            return None
        return history.plan_missing(
            self.use_case, self.records, [*self.backfilled, self.newest][0], self.before, utc_now()
        )

    def run_newest(self) -> None:
        """Run the newest partition through the scheduler, unless it is on record, and follow it
        to its end.
        """
        if self._ends() and not self.api.runs(
            prefix=f"{self.use_case.name}__", key=self.newest, states=ACTIVE
        ):
            say(f"partition {self.newest} of {self.use_case.name} is on record: {self._told()}")
            return
        say(f"running partition {self.newest} of {self.use_case.name}")
        started = utc_now()
        self.api.pause(self.dag("ingest_data"), False)
        if not self._is_scheduled():
            self.api.trigger(self.dag("ingest_data"), key=self.newest)
        self._follow([self.newest], started - timedelta(seconds=5))
        say(f"  {self._told()}")

    def backfill(self) -> None:
        """Backfill the partitions before the newest that were asked for: recomputed and judged,
        with no live effect.
        """
        keys = self.backfilled
        if not keys:
            return
        self.go_on()
        say(f"backfilling {len(keys)} partitions, {keys[0]} to {keys[-1]}")
        began = utc_now()
        number = self.api.backfill(
            self.dag("ingest_data"), keys[0], keys[-1], reprocess="completed"
        )
        while not self.api.backfill_done(number):
            self.supervisor.pause(1)
        self._follow(keys, began)

    def predict(self) -> dict[str, Any]:
        """Ask the serving node about an entity that is online; return its answer.

        Raises:
            NotDeployed: there is no champion, or the node does not answer for it.
        """
        route = self.records.routes.get(self.use_case.name)
        if route.champion is None:
            raise NotDeployed(
                f"{self.use_case.name} has no champion, so nothing can answer: {self._told()}"
            )
        body = {"entity": self._entity(route.champion)}
        url = f"{self.settings.node_url}/v1/{self.use_case.name}/predict"
        deadline, last = time.monotonic() + 30, "no answer"
        while time.monotonic() < deadline:
            try:
                answer = httpx.post(url, json=body, timeout=10, trust_env=False)
                if answer.is_success:
                    return {"request": body, **answer.json()}
                last = f"{answer.status_code}: {answer.text[:300]}"
                if answer.status_code in (404, 422):
                    break
            except httpx.HTTPError as error:
                last = type(error).__name__
            self.supervisor.pause(POLL)
        raise NotDeployed(
            f"the serving node at {url} gives no answer for {body}: {last}; see logs/node.log"
        )

    def _entity(self, champion: int) -> Any:
        """Return the entity whose online features are the newest, for the feature set that the
        champion reads.
        """
        from include.features.online_store import OnlineReader

        model = self.records.models.get(self.use_case.name, champion)
        reader = OnlineReader(self.settings.home / "online" / f"{self.use_case.name}.db")
        try:
            newest = (
                max(reader.rows(model.feature_set), key=lambda row: row[1], default=None)
                if model
                else None
            )
        finally:
            reader.close()
        if newest is None:
            raise NotDeployed(
                f"no entity of {self.use_case.name} is online; clear materialize_features for "
                f"{self.newest}"
            )
        return int(newest[0]) if self.use_case.entity.type == "int64" else newest[0]

    def _ends(self) -> StageResult | None:
        """Return the record of the release, if the partition is live and got so far."""
        row = self.records.partitions.get(self.use_case.name, self.newest)
        result = self.records.results.get(self.use_case.name, self.newest, "deploy_model")
        return (
            result
            if row is not None
            and row.mode == "live"
            and result is not None
            and result.state not in ("failed", "waiting")
            else None
        )

    def _is_scheduled(self) -> bool:
        """Wait a little for the run that the scheduler makes when a DAG is unpaused; tell
        whether it is of the newest key.
        """
        if self.use_case.history.last is not None:
            return False
        deadline = time.monotonic() + SCHEDULED_WITHIN
        while time.monotonic() < deadline:
            runs = self.api.runs(self.dag("ingest_data"))
            if any(run.key == self.newest and run.active for run in runs):
                return True
            if any(run.run_type == "scheduled" and (run.key or "") >= self.newest for run in runs):
                # It had its run, or the newest tick is of a partition that is not complete yet.
                return False
            self.supervisor.pause(POLL)
        return False

    def _follow_tasks(self, run: Run) -> None:
        seen: set[str] = set()
        while True:
            run = self.api.run(run.dag_id, run.run_id)
            for task in self.api.tasks(run):
                if task.task_id not in seen and task.state in ENDED:
                    seen.add(task.task_id)
                    self._show(task.task_id, str(task.state), task.seconds)
            if not run.active:
                return self._expect_success(run)
            self.supervisor.pause(POLL)

    def _follow(self, keys: Sequence[str], since: datetime) -> None:
        """Show every run of these keys as it ends, until the release and the drift check of each
        have ended.

        Raises:
            NotDeployed: a run failed, or nothing moves any more.
        """
        waiting = {(stage, key) for key in keys for stage in STAGES}
        moved = time.monotonic()
        while waiting:
            runs = self.api.runs(prefix=f"{self.use_case.name}__", after=since)
            for run in sorted(
                (run for run in runs if not run.active), key=lambda run: run.ended or since
            ):
                place = (run.dag_id.partition("__")[2], run.key or "")
                if place in waiting:
                    waiting.discard(place)
                    self._show(
                        place[0],
                        run.state if len(keys) == 1 else f"{run.state}  {run.key}",
                        run.seconds,
                    )
                    self._expect_success(run)
            if any(run.active for run in runs) or self._queued():
                moved = time.monotonic()
            if time.monotonic() - moved > STALLED_AFTER:
                lacking = ", ".join(sorted(f"{dag} {key}" for dag, key in waiting)[:3])
                raise NotDeployed(
                    f"nothing runs, yet {lacking} has not; `evergreen heal {self.use_case.name}` "
                    "starts it again"
                )
            if waiting:
                self.supervisor.pause(POLL)

    def _queued(self) -> bool:
        return bool(self.api.runs(prefix=f"{self.use_case.name}__", states=ACTIVE))

    def _expect_success(self, run: Run) -> None:
        if run.state == "success":
            return
        failed = [task for task in self.api.tasks(run) if task.state == "failed"]
        where = f"{run.dag_id} {run.key or ''}".strip() + (
            f", task {failed[0].task_id}" if failed else ""
        )
        raise NotDeployed(f"{where} failed: {self._why(run, failed[0].task_id if failed else '')}")

    def _why(self, run: Run, task_id: str) -> str:
        """Return the reason of a failure: the audit record of the failed task has it."""
        for entry in reversed(
            self.records.audit.entries(self.use_case.name, action="task.failed", limit=20)
        ):
            if entry.details.get("run") == run.run_id and entry.details.get("task") == task_id:
                return str(entry.details["reason"])
        return f"see its log in {self.settings.home / 'logs' / 'airflow'}"

    def _told(self) -> str:
        """Return what the newest partition came to, in words."""
        result = self.records.results.get(self.use_case.name, self.newest, "deploy_model")
        if result is None:
            return "it was not released"
        route = self.records.routes.get(self.use_case.name)
        state = (
            f"model {route.champion} is champion"
            if route.champion is not None
            else "there is no champion"
        )
        return (
            f"{result.state}, {result.reason}; {state}"
            if result.reason
            else f"{result.state}; {state}"
        )

    def _show(self, name: str, state: str, seconds: float) -> None:
        say(f"  {name:<22} {state:<20} {seconds:6.1f} s")


def _shown(answer: dict[str, Any]) -> str:
    width = max(len(name) for name in answer)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in answer.items())
