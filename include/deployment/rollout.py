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
from include.deployment.rollback import record_rollback
from include.errors import Conflict
from include.records.records import AuditEntry, Observed, Records, Route

log = logging.getLogger(__name__)

NODE_SILENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the serving nodes say of a routing row's challenger."""

    state: Literal["waiting", "ready", "failed"]
    reason: str


def node_readiness(route: Route, reports: Sequence[Observed]) -> Readiness:
    """Return whether all living nodes have tried the challenger of this very generation.

    Signs of life are compared with the newest among them, not with the clock of this process.
    """
    if route.challenger is None:
        return Readiness(
            "failed",
            "the candidate is not being released any more: it was rolled back, or another "
            "one was released",
        )
    newest = max((report.at for report in reports if report.state != "stopped"), default=None)
    if newest is None:
        return Readiness(
            "waiting", "no serving node follows this use case; start one with `evergreen serve`"
        )
    living = [
        report
        for report in reports
        if report.state != "stopped" and (newest - report.at).total_seconds() < NODE_SILENT_SECONDS
    ]
    for report in living:
        if report.generation == route.generation and report.state == "failed":
            problems = "; ".join(report.detail.get("problems", ())) or "no reason given"
            return Readiness("failed", f"node {report.node} refuses it: {problems}")
    late = [
        report.node
        for report in living
        if not (report.generation == route.generation and report.state == "ready")
    ]
    if late:
        return Readiness(
            "waiting", f"node {', '.join(late)} has not tried model {route.challenger} yet"
        )
    return Readiness("ready", f"{len(living)} node(s) have tried model {route.challenger}")


def answered(use_case: str, key: str) -> dict[str, Any] | None:
    """Return the nodes' answer to a release for the deferred wait, or None while there is none."""
    records = Records.open(environment.settings().records_address)
    readiness = node_readiness(records.routes.get(use_case), records.nodes.of(use_case))
    if readiness.state == "waiting":
        return None
    return {"state": readiness.state, "reason": readiness.reason}


def rollback(
    settings: Settings,
    use_case: str,
    actor: str,
    reason: str,
    *,
    of: Literal["champion", "challenger"] = "champion",
    expect_generation: int | None = None,
) -> Route:
    """Serve the last good model again, hold the present one, and show that in MLflow's aliases.

    Raises:
        Conflict: there is nothing to go back to, or another hand was faster.
    """
    records = Records.open(settings.records_address)
    route = record_rollback(
        records, use_case, actor, reason, of=of, expect_generation=expect_generation
    )
    mirror_aliases_of(settings, records, route)
    return route


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
