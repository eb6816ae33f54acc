"""Start again what stopped: partitions below their target, with nothing on its way."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.clock import utc_now
from include.pipeline.flow import ASSET_BEFORE, asset_uri
from include.pipeline.status import StatusRow

if TYPE_CHECKING:
    from include.config.settings import Settings
    from include.errors import Conflict
    from include.orchestration.airflow_api import AirflowApi
    from include.records.records import Records

log = logging.getLogger(__name__)

LIMIT = 10  # partitions that one command starts, so that it floods no scheduler


@dataclass(frozen=True, slots=True)
class Restart:
    """A partition to start again: by an asset event, or, without an asset, by `ingest_data`."""

    use_case: str
    key: str
    stage: str
    asset: str | None
    why: str


def plan_restarts(
    use_case: str, rows: Iterable[StatusRow], *, active: Collection[str], limit: int = LIMIT
) -> list[Restart]:
    """Return what to start again, newest first, at most `limit`.

    `active` are the keys with a queued or running run, or that are to wait. A refusal or a hold is
    terminal, a missing partition is for `load-history`, and a restated one is for a person.
    """
    waiting = [row for row in rows if row.kind == "waiting" and row.key not in active]
    newest = sorted(waiting, key=lambda row: row.key, reverse=True)[:limit]
    return [
        Restart(use_case, row.key, row.stage, ASSET_BEFORE.get(row.stage), row.detail)
        for row in newest
    ]


def find_active_keys(api: AirflowApi, use_case: str, among: Iterable[str]) -> set[str]:
    """Return the keys among these that a queued or running run, or load of a range, is about."""
    runs = api.runs(prefix=f"{use_case}__", states=("queued", "running"))
    loading = [run.conf for run in runs if run.dag_id == f"{use_case}__load_history"]
    ranges = [(conf.get("first") or "", conf.get("last") or "9999-12-31") for conf in loading]
    own = {run.key for run in runs if run.key is not None}
    return {
        key for key in among if key in own or any(first <= key <= last for first, last in ranges)
    }


def repair_aliases(settings: Settings, records: Records, use_case: str) -> dict[str, int | None]:
    """Make MLflow's aliases those of the routing row again; return what was changed, by alias."""
    from include.deployment.rollout import mirror_aliases_of

    if not records.models.of(use_case):
        return {}
    return mirror_aliases_of(settings, records, records.routes.get(use_case))


def judge_again(
    settings: Settings, use_case: str, key: str, error: Conflict, *, actor: str
) -> bool:
    """Have a candidate whose judgement was overtaken judged again; tell whether that was started.

    It is asked for over Airflow's REST API, once for a model in a generation of the routing row: a
    judgement that changes nothing does not go round in circles.
    """
    from include.orchestration.airflow_api import AirflowApi
    from include.pipeline.task_records import task_records
    from include.records.records import AuditEntry

    if error.judge_again is None:
        return False
    version, generation = error.judge_again
    once = f"release.judge_again/{use_case}/{key}/{version}/{generation}"
    records = task_records(settings)
    if any(
        entry.once == once
        for entry in records.audit.entries(use_case, action="release.judge_again", subject=key)
    ):
        return False
    with AirflowApi(settings) as api:
        candidate = asset_uri(use_case, ASSET_BEFORE["evaluate_model"])
        api.emit(candidate, key, {"judge_again": version})
    details = {"version": version, "generation": generation, "reason": str(error)}
    records.audit.append(
        AuditEntry("release.judge_again", use_case, key, actor, details, utc_now(), once)
    )
    log.info("%s %s: %s; the candidate is judged again", use_case, key, error)
    return True


def start_waiting(settings: Settings, use_case: str, *, actor: str) -> str | None:
    """Start the candidate that waits for a release to end, unless one is under way, or a freeze.

    Returns its partition. It is asked for over Airflow's REST API, once in a generation of the
    routing row: the run that sees a release end and the one after it ask for the same.
    """
    from include.orchestration.airflow_api import AirflowApi
    from include.pipeline.task_records import task_records
    from include.records.records import AuditEntry

    records = task_records(settings)
    releases, waiting = records.releases, records.releases.waiting(use_case)
    if waiting is None or releases.running(use_case) or releases.frozen(use_case):
        return None
    generation = records.routes.get(use_case).generation
    once = f"release.taken_up/{use_case}/{waiting.id}/{generation}"
    taken_up = records.audit.entries(use_case, action="release.taken_up", limit=20)
    if any(entry.once == once for entry in taken_up):
        return None
    with AirflowApi(settings) as api:
        bento = asset_uri(use_case, ASSET_BEFORE["deploy_model"])
        api.emit(bento, waiting.partition, {"release": waiting.id})
    details = {"release": waiting.id, "partition": waiting.partition, "generation": generation}
    records.audit.append(
        AuditEntry(
            "release.taken_up",
            use_case,
            str(waiting.challenger),
            actor,
            details,
            utc_now(),
            once,
        )
    )
    log.info("%s %s: the candidate that waited is started again", use_case, waiting.partition)
    return waiting.partition


def plan_releases(
    records: Records, use_case: str, *, active: Collection[str]
) -> tuple[list[Restart], set[str]]:
    """Return the releases to take up again, and the partitions that are to wait.

    A release under way, or watched, of which no run judges is taken up where it is; a candidate
    that waits is started once nothing is in its way.
    """
    releases = records.releases
    under_way, waiting = releases.running(use_case), releases.waiting(use_case)
    is_blocked = under_way is not None or releases.frozen(use_case) is not None
    wanted = {
        "nobody judges the release": under_way,
        "nobody watches its model": releases.watched(use_case),
        "it waits for no release any more": None if is_blocked else waiting,
    }
    restarts = [
        Restart(use_case, release.partition, "deploy_model", ASSET_BEFORE["deploy_model"], why)
        for why, release in wanted.items()
        if release is not None and release.partition not in active
    ]
    return restarts, {waiting.partition} if waiting is not None and is_blocked else set()


def restart_partition(api: AirflowApi, item: Restart, *, records: Records, actor: str) -> None:
    """Start one partition again over Airflow's REST API, and put that on the audit record."""
    from include.records.records import AuditEntry

    if item.asset is None:
        api.trigger(f"{item.use_case}__ingest_data", key=item.key)
    else:
        api.emit(asset_uri(item.use_case, item.asset), item.key, {"healed": True})
    details = {"stage": item.stage, "asset": item.asset, "why": item.why}
    records.audit.append(
        AuditEntry("heal.started", item.use_case, item.key, actor, details, utc_now())
    )
    log.info("heal %s %s: started %s", item.use_case, item.key, item.stage)
