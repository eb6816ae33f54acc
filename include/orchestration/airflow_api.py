"""Trigger, watch and ask Airflow over its REST API; this module does not import Airflow.

Every `airflow ...` command costs seconds of imports, and stages must know nothing of Airflow:
whoever needs to trigger, to watch or to ask does it over REST.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast
from urllib.parse import quote

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from include.config.settings import Settings
from include.errors import ConfigError, Conflict, Unavailable
from include.orchestration.airflow_login import password_of, password_place
from include.orchestration.airflow_runs import Run, TaskState, moment_of, run_of
from include.processes import find_listeners

PAGE = 100  # rows of one answer: the most that Airflow gives
JSON = dict[str, Any]
Reprocess = Literal["none", "completed", "failed"]
_ATTEMPTS = 3  # at a question that changes nothing: a start must not end of one that came too late


class _Overloaded(Unavailable):
    """Airflow is there, and was too slow, or its database was held by others."""


class AirflowApi:
    """Airflow's API server of one installation, as the user of the settings.

    Raises:
        Unavailable: the server does not answer, or refuses the password.
        ConfigError: it refuses what was asked (unknown DAG, wrong key).
        Conflict: what was asked for is there already.
    """

    def __init__(self, settings: Settings, *, timeout: float = 30.0) -> None:
        self._settings = settings
        self._http = httpx.Client(base_url=settings.airflow_url, timeout=timeout, trust_env=False)

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def health(self) -> dict[str, str]:
        """Return the state of each component, such as `{"scheduler": "healthy"}`.

        Empty while nobody answers.
        """
        try:
            answer = self._http.get("/api/v2/monitor/health", timeout=5)
            return (
                {name: str((part or {}).get("status")) for name, part in answer.json().items()}
                if answer.is_success
                else {}
            )
        except (httpx.HTTPError, ValueError):
            return {}

    def dag_ids(self, use_case: str | None = None) -> set[str]:
        """Return the DAGs that Airflow knows, of one use case or of all."""
        prefix = f"{use_case}__" if use_case else ""
        return {
            row["dag_id"]
            for row in self._pages("/api/v2/dags", "dags")
            if row["dag_id"].startswith(prefix)
        }

    def task_ids(self, dag_id: str) -> set[str]:
        """Return the tasks that a DAG has now, by their ids."""
        body = self._call("GET", f"/api/v2/dags/{quote(dag_id)}/tasks")
        return {row["task_id"] for row in body["tasks"]}

    def import_errors(self) -> list[str]:
        """Return what Airflow could not parse, `file: last line` each."""
        rows = self._pages("/api/v2/importErrors", "import_errors")
        return [f"{row['filename']}: {row['stack_trace'].strip().splitlines()[-1]}" for row in rows]

    def paused(self, dag_id: str) -> bool:
        """Tell whether a DAG is paused."""
        return bool(self._call("GET", f"/api/v2/dags/{quote(dag_id)}")["is_paused"])

    def pause(self, dag_id: str, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self._call("PATCH", f"/api/v2/dags/{quote(dag_id)}", json={"is_paused": paused})

    def trigger(
        self,
        dag_id: str,
        *,
        key: str | None = None,
        conf: Mapping[str, Any] | None = None,
        note: str | None = None,
    ) -> Run:
        """Start a form run, for a partition key where one is given."""
        body = {"logical_date": None, "conf": dict(conf or {}), "note": note} | (
            {"partition_key": key} if key else {}
        )
        return run_of(self._call("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", json=body))

    def run(self, dag_id: str, run_id: str) -> Run:
        """Return one run as it is now."""
        return run_of(
            self._call("GET", f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}")
        )

    def runs(
        self,
        dag_id: str = "~",
        *,
        prefix: str = "",
        key: str | None = None,
        states: Sequence[str] = (),
        after: datetime | None = None,
    ) -> list[Run]:
        """Return runs, newest first, of one DAG or of all whose ids begin with `prefix`.

        `key`, `states` and `after` (the moment since which they began) narrow them.
        """
        params: dict[str, Any] = {"order_by": "-id"}
        if prefix:
            params["dag_id_prefix_pattern"] = prefix
        if key:
            params["partition_key_prefix_pattern"] = key
        if states:
            params["state"] = list(states)
        if after:
            params["start_date_gte"] = after.isoformat()
        runs = (
            run_of(row)
            for row in self._pages(f"/api/v2/dags/{quote(dag_id)}/dagRuns", "dag_runs", params)
        )
        # Airflow's filters are prefixes, so more may come than was asked for.
        return [
            run for run in runs if run.dag_id.startswith(prefix) and (key is None or run.key == key)
        ]

    def tasks(self, run: Run) -> list[TaskState]:
        """Return the tasks of a run, in the order in which they started."""
        path = (
            f"/api/v2/dags/{quote(run.dag_id)}/dagRuns/{quote(run.run_id, safe='')}/taskInstances"
        )
        tasks = [
            TaskState(
                row["task_id"],
                row["state"],
                row["duration"] or 0.0,
                moment_of(row["start_date"]),
                row["try_number"],
            )
            for row in self._pages(path, "task_instances")
        ]
        return sorted(
            tasks,
            key=lambda task: (
                task.started is None,
                task.started or datetime.min.replace(tzinfo=UTC),
            ),
        )

    def log(self, run: Run, task: TaskState) -> list[str]:
        """Return the log lines of a task's last try."""
        of_run = f"/api/v2/dags/{quote(run.dag_id)}/dagRuns/{quote(run.run_id, safe='')}"
        path = f"{of_run}/taskInstances/{quote(task.task_id)}"
        body = self._call(
            "GET", f"{path}/logs/{max(task.try_number, 1)}", params={"full_content": "true"}
        )
        return [
            str(line.get("event", "")) if isinstance(line, dict) else str(line)
            for line in body.get("content", [])
        ]

    def clear(self, run: Run) -> None:
        """Run a finished run again."""
        path = f"/api/v2/dags/{quote(run.dag_id)}/dagRuns/{quote(run.run_id, safe='')}/clear"
        self._call("POST", path, json={"dry_run": False})

    def backfill(
        self,
        dag_id: str,
        first: str,
        last: str,
        *,
        max_active_runs: int = 10,
        backwards: bool = False,
        reprocess: Reprocess = "none",
        conf: Mapping[str, Any] | None = None,
    ) -> int:
        """Backfill the partitions from `first` to `last`, both included; return its id."""
        body = {
            "dag_id": dag_id,
            "from_date": datetime.combine(date.fromisoformat(first), time.min, UTC).isoformat(),
            "to_date": datetime.combine(date.fromisoformat(last), time.min, UTC).isoformat(),
            "dag_run_conf": dict(conf or {}),
            "max_active_runs": max_active_runs,
            "run_backwards": backwards,
            "reprocess_behavior": reprocess,
        }
        return int(self._call("POST", "/api/v2/backfills", json=body)["id"])

    def backfill_done(self, backfill_id: int) -> bool:
        """Tell whether all runs of a backfill have ended."""
        return self._call("GET", f"/api/v2/backfills/{backfill_id}")["completed_at"] is not None

    def asset_id(self, uri: str) -> int:
        """Return Airflow's id of an asset."""
        for row in self._pages("/api/v2/assets", "assets", {"uri_pattern": uri}):
            if row["uri"] == uri:
                return int(row["id"])
        raise ConfigError(
            f"Airflow knows no asset {uri}; check that its DAG is listed and has no import error"
        )

    def emit(self, uri: str, key: str, extra: Mapping[str, Any] | None = None) -> None:
        """Emit an asset event for a partition, so that the DAG below runs for it."""
        body = {"asset_id": self.asset_id(uri), "partition_key": key, "extra": dict(extra or {})}
        self._call("POST", "/api/v2/assets/events", json=body)

    def events(self, uri: str, *, key: str | None = None) -> list[JSON]:
        """Return the events of an asset, newest first."""
        rows = self._pages(
            "/api/v2/assets/events",
            "asset_events",
            {"asset_id": self.asset_id(uri), "order_by": "-timestamp"},
        )
        return [row for row in rows if key is None or row.get("partition_key") == key]

    @cached_property
    def _token(self) -> str:
        user = self._settings.airflow_user
        password = password_of(self._settings, user).get_secret_value()
        if not self._settings.is_airflow_remote:
            self._refuse_strangers()
        answer = self._send("POST", "/auth/token", json={"username": user, "password": password})
        if answer.status_code != 201:
            raise Unavailable(
                f"Airflow at {self._settings.airflow_url} refuses the password of {user!r} in "
                f"{password_place(self._settings, user)}: another installation may answer there; "
                f"set {self._setting}, or stop the other one"
            )
        return str(answer.json()["access_token"])

    @property
    def _setting(self) -> str:
        """Name of the setting that says where Airflow answers."""
        remote = self._settings.is_airflow_remote
        return "EVERGREEN_AIRFLOW_ADDRESS" if remote else "EVERGREEN_AIRFLOW_PORT"

    def _refuse_strangers(self) -> None:
        """Refuse to send the password to a port that another user's process holds.

        While Airflow is down, any user of this machine can listen there.

        Raises:
            Unavailable: one does.
        """
        # Who owns the file has the password; root may ask for another one.
        place = Path(password_place(self._settings, self._settings.airflow_user))
        known = {os.getuid(), place.stat().st_uid}
        strangers = find_listeners(self._settings.airflow_port) - known
        if strangers:
            raise Unavailable(
                f"port {self._settings.airflow_port} is held by a process of user "
                f"{min(strangers)}, which is not sent Airflow's password; end it, or set "
                "EVERGREEN_AIRFLOW_PORT to the port where your Airflow runs"
            )

    def _call(self, method: str, path: str, **options: Any) -> JSON:
        """Return what Airflow answers; ask again for what only reads, where it was too busy."""
        attempts = _ATTEMPTS if method == "GET" else 1
        retrying = Retrying(
            retry=retry_if_exception_type(_Overloaded),
            stop=stop_after_attempt(attempts),
            wait=wait_fixed(1),
            reraise=True,
        )
        return retrying(self._call_once, method, path, **options)

    def _call_once(self, method: str, path: str, **options: Any) -> JSON:
        for _ in range(2):
            token = {"Authorization": f"Bearer {self._token}"}
            answer = self._send(method, path, headers=token, **options)
            if answer.status_code != 401:
                break
            del self._token  # it has run out
        if answer.is_success:
            return cast(JSON, answer.json()) if answer.content else {}
        reason = _reason(answer)
        if answer.status_code == 409:
            raise Conflict(f"Airflow: {reason}")
        if answer.status_code >= 500:
            raise _Overloaded(
                f"Airflow answered {answer.status_code} to {method} {path}: {reason}; see the "
                "api-server's log"
            )
        hint = (
            f"; {self._settings.airflow_user!r} may not do this: set EVERGREEN_AIRFLOW_USER"
            if answer.status_code == 403
            else ""
        )
        raise ConfigError(f"Airflow refuses {method} {path} ({answer.status_code}): {reason}{hint}")

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            # Who does not listen is down; who is late may be in time at the next question.
            kind = _Overloaded if isinstance(error, httpx.ReadTimeout) else Unavailable
            raise kind(
                f"Airflow does not answer at {self._settings.airflow_url} "
                f"({type(error).__name__}); start it with `make run`, or set {self._setting} to "
                "where it runs"
            ) from error

    def _pages(
        self, path: str, field: str, params: Mapping[str, Any] | None = None
    ) -> Iterator[JSON]:
        """Yield the rows of all pages of a list."""
        offset = 0
        while True:
            body = self._call(
                "GET", path, params={**(params or {}), "limit": PAGE, "offset": offset}
            )
            rows = body[field]
            yield from rows
            offset += len(rows)
            if len(rows) < PAGE:
                return


def _reason(answer: httpx.Response) -> str:
    try:
        detail = answer.json().get("detail", answer.text)
    except ValueError:
        detail = answer.text
    return (detail if isinstance(detail, str) else json.dumps(detail))[:500]
