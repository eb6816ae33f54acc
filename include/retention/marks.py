"""Mark from the records which versions of a use case keep their files, and why.

Whatever serves, served before, may serve next or is on hold; both models of a release that has not
ended, or whose model is on probation; whom any of these was judged against; the newest few. Age
alone never decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.records.models import last_good
from include.records.nodes import REPLACED
from include.records.probation_rows import open_rows
from include.records.schema import (
    ModelRow,
    ObservationRow,
    OpponentRow,
    ReleaseRow,
    ResultRow,
    RouteRow,
)


class Version(NamedTuple):
    """What a collection must know of a version: without its manifest, which is large."""

    version: int
    model_digest: str
    partition: str
    state: str
    bundle: str
    run_id: str
    bento_tag: str | None
    collected_at: datetime | None
    bundle_uri: str | None
    reference_uri: str | None
    bento_uri: str | None


def versions_of(session: Session, use_case: str) -> list[Version]:
    """Return the versions of a use case, the oldest first."""
    columns = (
        ModelRow.version,
        ModelRow.model_digest,
        ModelRow.partition,
        ModelRow.state,
        ModelRow.bundle,
        ModelRow.run_id,
        ModelRow.bento_tag,
        ModelRow.collected_at,
        ModelRow.bundle_uri,
        ModelRow.reference_uri,
        ModelRow.bento_uri,
    )
    statement = select(*columns).where(ModelRow.use_case == use_case).order_by(ModelRow.version)
    return [Version(*row) for row in session.execute(statement)]


def mark(session: Session, use_case: str, *, newest: int) -> dict[int, str]:
    """Return why each version is kept that must be; the others may go.

    `newest` is how many of the newest versions are kept whatever they are.
    """
    versions = versions_of(session, use_case)
    kept: dict[int, str] = {}

    def keep(names: Iterable[int | None], why: str) -> None:
        for version in names:
            if version is not None:
                kept.setdefault(version, why)

    route = session.get(RouteRow, use_case)
    if route is not None:
        for role in ("champion", "previous", "challenger"):
            keep([getattr(route, role)], role)
        keep([_after_rollback(versions, route)], "where a second rollback would go")
        keep(
            [each.version for each in versions if each.model_digest in route.held],
            "on hold: a person may lift it",
        )
    for release in _releases(session, use_case):
        keep([release.challenger], f"its release is {release.state}")
        keep([release.champion], f"release {release.id} began with it")
    for probation in open_rows(session, use_case):
        until = f"{probation.matures_at:%Y-%m-%d}"
        keep([probation.version], f"on probation: its outcomes are mature on {until}")
        keep([probation.opponent], f"version {probation.version} on probation is compared with it")
    keep([_waiting(versions, route)], "waits for its release")
    keep(
        session.scalars(
            select(ObservationRow.version).where(
                ObservationRow.use_case == use_case, ObservationRow.state != REPLACED
            )
        ),
        "a node reports it",
    )
    keep([each.version for each in versions[-newest:]], f"one of the newest {newest}")
    _keep_opponents(session, use_case, versions, kept)
    return kept


def _releases(session: Session, use_case: str) -> list[ReleaseRow]:
    """Return the releases that have not ended."""
    rows = select(ReleaseRow).where(ReleaseRow.use_case == use_case, ReleaseRow.ended_at.is_(None))
    return list(session.scalars(rows.order_by(ReleaseRow.started_at)))


def _waiting(versions: list[Version], route: RouteRow | None) -> int | None:
    """Return the newest version that passed the gate and may be released; it supersedes others."""
    watermark = None if route is None else route.watermark
    waiting = [
        (each.partition, each.version)
        for each in versions
        if each.state == "challenger" and (watermark is None or each.partition >= watermark)
    ]
    return max(waiting, default=(None, None))[1]


def _after_rollback(versions: list[Version], route: RouteRow) -> int | None:
    """Return which version would be `previous` after the champion was rolled back."""
    bad = next((each.model_digest for each in versions if each.version == route.champion), "")
    return last_good(versions, {*route.held, bad}, route.previous)


def _keep_opponents(
    session: Session, use_case: str, versions: list[Version], kept: dict[int, str]
) -> None:
    """Keep whom the kept versions were judged against: so each can be judged again."""
    judged = [each for each in versions if each.version in kept]
    digests = {each.model_digest: each.version for each in judged}
    partitions = {each.partition: each.version for each in judged}
    recorded = session.execute(
        select(OpponentRow.model_digest, OpponentRow.version).where(
            OpponentRow.use_case == use_case
        )
    ).all()
    named = [
        (digests[digest], version)
        for digest, version in recorded
        if digest in digests and version is not None
    ]
    results = session.execute(
        select(ResultRow.key, ResultRow.outputs).where(
            ResultRow.use_case == use_case, ResultRow.stage == "evaluate_model"
        )
    ).all()
    named += [
        (partitions[key], outputs["opponent"])
        for key, outputs in results
        if key in partitions and isinstance(outputs.get("opponent"), int)
    ]
    for judged_version, opponent in named:
        kept.setdefault(opponent, f"version {judged_version} was judged against it")


def pinned_versions(session: Session, use_case: str) -> dict[str, set[int]]:
    """Return the versions of lake tables that a manifest or a training on record names, by table.

    Also those of models whose files were collected: what they were trained on stays readable.
    """
    pinned: dict[str, set[int]] = {}

    def pin(table: object, version: object) -> None:
        if isinstance(table, str) and isinstance(version, int):
            pinned.setdefault(table, set()).add(version)

    manifests = select(ModelRow.manifest).where(ModelRow.use_case == use_case)
    for manifest in session.scalars(manifests.execution_options(yield_per=100)):
        for table, version in (manifest.get("tables") or {}).items():
            pin(table, version)
        _pin_training_set(manifest, pin)
    outputs = select(ResultRow.outputs).where(
        ResultRow.use_case == use_case, ResultRow.stage == "train_model"
    )
    for recorded in session.scalars(outputs.execution_options(yield_per=100)):
        _pin_training_set(recorded, pin)
    return pinned


def _pin_training_set(told: dict[str, Any], pin: Any) -> None:
    training_set = told.get("training_set")
    if isinstance(training_set, dict):
        pin(training_set.get("table"), training_set.get("table_version"))
