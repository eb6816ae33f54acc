"""The main job of one use case: history, the newest partition through Airflow, one answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import httpx

from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import Unavailable
from include.installation.progress import Followed, NotDeployed, print_line
from include.installation.waiting import Waiting
from include.orchestration.airflow_api import AirflowApi
from include.orchestration.airflow_runs import ACTIVE
from include.pipeline import history
from include.pipeline.flow import STAGES
from include.point_in_time import partitions
from include.records.records import Records, StageResult

LISTED_WITHIN = 90.0  # seconds in which Airflow has read the DAG files of a fresh start
SCHEDULED_WITHIN = 20.0  # seconds in which the scheduler makes the run of a DAG that is unpaused
ANSWERED_WITHIN = 30.0  # seconds in which the node loads a model that was just released
LOOKED_BACK = timedelta(seconds=5)  # how much Airflow's clock may be behind this one


class MainJob:
    """What is done for one use case, while the supervisor, or a container engine, keeps all up.

    Raises:
        NotDeployed: it has no complete partition yet.
    """

    def __init__(
        self,
        settings: Settings,
        use_case: UseCase,
        waiting: Waiting,
        api: AirflowApi,
        days: int = 0,
    ) -> None:
        self.settings, self.use_case = settings, use_case
        self.waiting, self.api = waiting, api
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
        self._followed = Followed(settings, use_case.name, self.records, api, waiting.pause)

    def dag(self, name: str) -> str:
        """Return the id of one of the use case's DAGs."""
        return f"{self.use_case.name}__{name}"

    def is_on_record(self) -> bool:
        """Tell whether all of it was done before, so that nothing needs Airflow first."""
        if not self._release_result() or self._history_to_load():
            return False
        print_line(
            f"partition {self.newest} of {self.use_case.name} is on record: {self._describe()}"
        )
        return True

    def unpause(self) -> None:
        """Leave the nightly run to the scheduler."""
        self.api.pause(self.dag("ingest_data"), False)

    def wait_for_dags(self) -> None:
        """Wait until Airflow lists the use case's DAGs.

        Raises:
            Unavailable: it does not; the message has the import errors.
        """
        wanted = {self.dag(name) for name in (*STAGES, "load_history")}
        if not self.waiting.wait_for(
            lambda: wanted <= self.api.dag_ids(self.use_case.name), seconds=LISTED_WITHIN
        ):
            missing = sorted(wanted - self.api.dag_ids(self.use_case.name))
            problems = (
                "; ".join(self.api.import_errors())
                or "no import error is reported; see the dag-processor's log"
            )
            raise Unavailable(f"Airflow does not list {', '.join(missing)}: {problems}")

    def load_history(self) -> None:
        """Load, through `load_history`, what the trainings look back on, and missed days."""
        steps = self._history_to_load()
        if steps is None:
            return
        print_line(
            f"loading the history of {self.use_case.name}, {steps['ingest_data'][0]} to "
            f"{steps['ingest_data'][-1]}, in one pass"
        )
        features = steps["materialize_features"]
        run = self.api.trigger(
            self.dag("load_history"), conf={"first": features[0], "last": features[-1]}
        )
        self.api.pause(self.dag("load_history"), False)
        self._followed.follow_run(run)

    def run_newest(self) -> None:
        """Run the newest partition through the scheduler to its end, unless it is on record."""
        if self._release_result() and not self.api.runs(
            prefix=f"{self.use_case.name}__", key=self.newest, states=ACTIVE
        ):
            print_line(
                f"partition {self.newest} of {self.use_case.name} is on record: {self._describe()}"
            )
            return
        print_line(f"running partition {self.newest} of {self.use_case.name}")
        started = utc_now()
        self.unpause()
        if not self._is_scheduled():
            self.api.trigger(self.dag("ingest_data"), key=self.newest)
        self._followed.follow_chain([self.newest], started - LOOKED_BACK)
        print_line(f"  {self._describe()}")

    def backfill(self) -> None:
        """Recompute and judge the partitions before the newest, as many as were asked for."""
        keys = self.backfilled
        if not keys:
            return
        self.unpause()
        print_line(f"backfilling {len(keys)} partitions, {keys[0]} to {keys[-1]}")
        began = utc_now()
        number = self.api.backfill(
            self.dag("ingest_data"), keys[0], keys[-1], reprocess="completed"
        )
        while not self.api.backfill_done(number):
            self.waiting.pause(1)
        self._followed.follow_chain(keys, began)

    def predict(self) -> dict[str, Any]:
        """Ask the serving node about an entity that is online; return request and answer.

        Raises:
            NotDeployed: there is no champion, or the node does not answer for it.
        """
        route = self.records.routes.get(self.use_case.name)
        if route.champion is None:
            raise NotDeployed(
                f"{self.use_case.name} has no champion, so nothing can answer: {self._describe()}"
            )
        body = {"entity": self._newest_entity(route.champion)}
        url = f"{self.settings.predict_url}/v1/{self.use_case.name}/predict"
        token = self.settings.node_secret.get_secret_value()
        headers = {"authorization": f"Bearer {token}"}
        problem = "no answer"

        def ask() -> dict[str, Any] | Literal["final"] | None:
            nonlocal problem
            try:
                answer = httpx.post(url, json=body, headers=headers, timeout=10, trust_env=False)
            except httpx.HTTPError as error:
                problem = type(error).__name__
                return None
            if answer.is_success:
                return {"request": body, **answer.json()}
            problem = f"{answer.status_code}: {answer.text[:300]}"
            # Unknown entity, wrong request: asking again changes nothing.
            return "final" if answer.status_code in (404, 422) else None

        answer = self.waiting.wait_for(ask, seconds=ANSWERED_WITHIN)
        if not isinstance(answer, dict):
            raise NotDeployed(
                f"the serving node at {url} gives no answer for {body}: {problem}; see "
                "logs/node.log"
            )
        return answer

    def _history_to_load(self) -> dict[str, list[str]] | None:
        """Return the keys that each data stage has to run first; None where nothing is missing."""
        if self.before is None:
            return None
        first = [*self.backfilled, self.newest][0]
        return history.plan_missing(self.use_case, self.records, first, self.before, utc_now())

    def _newest_entity(self, champion: int) -> int | str:
        """Return the entity with the newest online row of the champion's feature set."""
        from include.features.online_stores import open_store

        model = self.records.models.get(self.use_case.name, champion)
        store = open_store(self.settings, self.use_case.name)
        try:
            newest = (
                max(store.rows(model.feature_set), key=lambda row: row[1], default=None)
                if model
                else None
            )
        finally:
            store.close()
        if newest is None:
            raise NotDeployed(
                f"no entity of {self.use_case.name} is online; clear materialize_features for "
                f"{self.newest}"
            )
        return int(newest[0]) if self.use_case.entity.type == "int64" else newest[0]

    def _release_result(self) -> StageResult | None:
        """Return the newest partition's last result, where it is live and got so far."""
        partition = self.records.partitions.get(self.use_case.name, self.newest)
        result = self.records.results.get(self.use_case.name, self.newest, "deploy_model")
        if partition is None or partition.mode != "live":
            return None
        if result is None or result.state == "failed":
            return None
        return result if result.state != "waiting" or self._is_releasing() else None

    def _is_releasing(self) -> bool:
        """Tell whether the newest partition's release is in its steps, or queued: nobody waits."""
        releases = self.records.releases
        name = self.use_case.name
        return any(
            release is not None and release.partition == self.newest and release.state != "trying"
            for release in (releases.running(name), releases.waiting(name))
        )

    def _is_scheduled(self) -> bool:
        """Wait a little for the run that the scheduler makes of an unpaused DAG.

        Tells whether there is one of the newest key.
        """
        if self.use_case.history.last is not None:
            return False

        def look() -> Literal["active", "over"] | None:
            runs = self.api.runs(self.dag("ingest_data"))
            if any(run.key == self.newest and run.active for run in runs):
                return "active"
            # It had its run, or the newest tick is of a partition that is not complete yet.
            ticks = [run.key or "" for run in runs if run.run_type == "scheduled"]
            return "over" if any(key >= self.newest for key in ticks) else None

        return self.waiting.wait_for(look, seconds=SCHEDULED_WITHIN) == "active"

    def _describe(self) -> str:
        """Return what the newest partition came to, in words."""
        result = self.records.results.get(self.use_case.name, self.newest, "deploy_model")
        if result is None:
            return "it was not released"
        champion = self.records.routes.get(self.use_case.name).champion
        serves = f"model {champion} is champion" if champion is not None else "there is no champion"
        came_to = f"{result.state}, {result.reason}" if result.reason else result.state
        return f"{came_to}; {serves}"
