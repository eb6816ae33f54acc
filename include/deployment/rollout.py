"""What the serving nodes say of a release, and how one is taken back.

The light part of deployment, which triggers and commands import.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from include.clock import utc_now
from include.config import settings as environment
from include.config.settings import Settings
from include.deployment.rollback import Order, TakenBack, take_back
from include.errors import Conflict
from include.pipeline.task_records import task_records
from include.records.records import AuditEntry, Observation, Records, Route

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the serving nodes say of a routing row's challenger."""

    state: Literal["waiting", "ready", "failed"]
    reason: str


def node_readiness(route: Route, reports: Sequence[Observation]) -> Readiness:
    """Return whether all living nodes have tried the challenger of this very generation.

    Also whether they have in memory what a rollback would go back to. Where a node refuses all of
    that, nothing is lost by a release, which is the repair.
    """
    if route.challenger is None:
        return Readiness(
            "failed",
            "the candidate is not being released any more: it was rolled back, or another "
            "one was released",
        )
    living = [report for report in reports if report.living]
    nodes = sorted({report.node for report in living})
    if not nodes:
        return Readiness(
            "waiting", "no serving node follows this use case; start one with `evergreen serve`"
        )
    tried = {
        report.node: report
        for report in living
        if report.role == "challenger"
        and report.version == route.challenger
        and report.generation == route.generation
    }
    for node, report in tried.items():
        if report.state == "refused":
            return Readiness(
                "failed", f"node {node} refuses it: {report.reason or 'no reason given'}"
            )
    late = [node for node in nodes if node not in tried or tried[node].state != "ready"]
    if late:
        why = [
            f"{node} could not yet: {tried[node].reason}"
            for node in late
            if node in tried and tried[node].state == "could_not"
        ]
        return Readiness(
            "waiting",
            f"node {', '.join(late)} has not tried model {route.challenger} yet"
            + "".join(f"; {reason}" for reason in why),
        )
    if lacking := _without_way_back(route, living):
        return Readiness("waiting", "; ".join(lacking))
    return Readiness("ready", f"{len(nodes)} node(s) have tried model {route.challenger}")


def _without_way_back(route: Route, living: Sequence[Observation]) -> list[str]:
    """Return which nodes could not go back, as they have not loaded champion or previous model."""
    named = {"champion": route.champion, "previous": route.previous}
    told = []
    for node in sorted({report.node for report in living}):
        targets = [
            report
            for report in living
            if report.node == node and named.get(report.role) == report.version
        ]
        bad = [report for report in targets if report.state not in ("serving", "ready")]
        if len(bad) == len(targets) and all(report.state == "refused" for report in bad):
            continue
        told += [
            f"{node} has not loaded model {report.version}, to which a rollback would go "
            f"({report.state}{f': {report.reason}' if report.reason else ''})"
            for report in bad
        ]
    return told


def serving_nodes(route: Route, reports: Sequence[Observation]) -> list[str]:
    """Return the living nodes on which the champion of this generation, or a later one, answers."""
    return sorted(
        report.node
        for report in reports
        if report.living
        and report.role == "champion"
        and report.state == "serving"
        and report.version == route.champion
        and report.generation >= route.generation
    )


def champion_problems(route: Route, reports: Sequence[Observation]) -> str:
    """Return why living nodes do not serve the champion, as far as they say."""
    said = [
        f"node {report.node}: {report.state}{f', {report.reason}' if report.reason else ''}"
        for report in reports
        if report.living and report.role == "champion" and report.version == route.champion
    ]
    return "; ".join(said) or "no serving node follows this use case; run `evergreen serve`"


def answered(use_case: str, key: str) -> dict[str, Any] | None:
    """Return the nodes' answer to a release for the deferred wait, or None while there is none."""
    records = task_records(environment.settings())
    readiness = node_readiness(records.routes.get(use_case), records.nodes.of(use_case))
    if readiness.state == "waiting":
        return None
    return {"state": readiness.state, "reason": readiness.reason}


def rollback(settings: Settings, use_case: str, order: Order) -> TakenBack:
    """Serve the last good model again, hold the present one, and show that in MLflow's aliases.

    Aliases that cannot be mended now are only warned of: what was decided is done.

    Raises:
        ConfigError: the order has no reason, or names nothing.
        Conflict: there is nothing to go back to, or another hand was faster.
    """
    records = Records.open(settings.records_address)
    taken = take_back(records, use_case, order)
    try:
        mirror_aliases_of(settings, records, taken.route)
    except Exception as error:  # noqa: BLE001 - a command that was done must not end as failed
        log.warning(
            "%s: MLflow's aliases do not show it yet (%s); `evergreen heal %s` mends them",
            use_case,
            error,
            use_case,
        )
    return taken


def release_hold(
    settings: Settings,
    use_case: str,
    version: int,
    actor: str,
    reason: str,
    *,
    at: datetime | None = None,
) -> Route:
    """Lift the hold that a rollback put on a model's digest, as a person decided.

    Raises:
        Conflict: the model is not on hold.
    """
    records = Records.open(settings.records_address)
    model = records.models.get(use_case, version)
    if model is None:
        raise Conflict(
            f"{use_case} has no model version {version}; `evergreen status {use_case}` lists what "
            "there is"
        )
    entry = AuditEntry(
        "release.hold_lifted", use_case, str(version), actor, {"reason": reason}, at or utc_now()
    )
    return records.routes.lift(use_case, model.model_digest, entry=entry)


def mirror_aliases_of(settings: Settings, records: Records, route: Route) -> dict[str, int | None]:
    """Make the registry's aliases say what the routing row says; return what was changed."""
    from include.models.mlflow_registry import mirror_aliases, waiting_challenger

    challenger = waiting_challenger(records.models.of(route.use_case), route)
    return mirror_aliases(settings, route.use_case, route, challenger=challenger)
