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

    `active` are the keys with a queued or running run. A refusal or a hold is terminal, a missing
    partition is for `load-history`, and a restated one is for a person.
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
    from include.records.records import AuditEntry, Records

    if error.judge_again is None:
        return False
    version, generation = error.judge_again
    once = f"release.judge_again/{use_case}/{key}/{version}/{generation}"
    records = Records.open(settings.records_address)
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
