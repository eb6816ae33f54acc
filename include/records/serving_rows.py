"""Read what the serving nodes follow: every routing row, with the models that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from include.records.database import Database
from include.records.epochs import FIRST, RESTORED, read_epoch
from include.records.models import Model
from include.records.release_reports import Beat
from include.records.release_rows import LIVING, Release
from include.records.route_changes import Route
from include.records.rows import plain
from include.records.schema import (
    AuditHead,
    AuditRow,
    ModelRow,
    ReleaseBeatRow,
    ReleaseRow,
    RouteRow,
)

ROLES = ("champion", "previous", "challenger")
RESET = "use_case.reset"  # the action of the audit row that a reset leaves


@dataclass(frozen=True, slots=True)
class ServingRow:
    """What the records say of a use case at one moment.

    A full state, never a step: between two looks any number of changes may have been made. The
    models are without their manifests, which no node reads. `release` is the one that the routing
    row names, unless it has ended, without what changes with each verdict (`verdicts` and
    `revision`). `beat` is the judge's last one of it; rows that differ by it alone are equal.
    """

    route: Route
    models: Mapping[int, Model]
    release: Release | None = None
    beat: Beat | None = dataclasses.field(default=None, compare=False)

    def model(self, role: str) -> Model | None:
        """Return the model that the row names in a role, if it names one that is on record."""
        version = getattr(self.route, role)
        return None if version is None else self.models.get(version)


@dataclass(frozen=True, slots=True)
class ServingRows:
    """The rows of all use cases; `removed` are those of the asked names that were reset.

    `head` is the number of the newest audit row, `epoch` the life of the database, as of the same
    moment.
    """

    rows: tuple[ServingRow, ...]
    removed: frozenset[str] = frozenset()
    head: int = 0
    epoch: int = FIRST


def read_serving_rows(
    database: Database, known: Collection[str] = (), since: int = 0, epoch: int | None = None
) -> ServingRows:
    """Return the rows of all use cases, as of one moment.

    Of the `known` names that have no row, those are `removed` that the audit log says were reset
    after its row `since`, the `head` of when they were read last, in that `epoch`. A restore has
    begun to count anew since then: after it each reset counts, and none of before. A row that is
    missing without a reset removes nothing: a database was lost and made anew, or restored from
    before the release of a use case that had been reset once.
    """

    def work(session: Session) -> ServingRows:
        routes = [
            plain(Route, row)
            for row in session.scalars(select(RouteRow).order_by(RouteRow.use_case))
        ]
        models, releases = _models(session, routes), _releases(session, routes)
        beats = _beats(session, releases)
        rows = tuple(
            ServingRow(
                route,
                {
                    version: models[route.use_case, version]
                    for role in ROLES
                    if (version := getattr(route, role)) is not None
                    and (route.use_case, version) in models
                },
                releases.get(route.use_case),
                beats.get(route.use_case),
            )
            for route in routes
        )
        missing = set(known) - {route.use_case for route in routes}
        head = session.scalar(select(AuditHead.sequence)) or 0
        now = read_epoch(session)
        after = since if epoch is None or now <= epoch else _restored(session)
        return ServingRows(rows, _reset(session, missing, after), head, now)

    return database.read(work)


def _models(session: Session, routes: Collection[Route]) -> dict[tuple[str, int], Model]:
    named = [
        (ModelRow.use_case == route.use_case)
        & ModelRow.version.in_({getattr(route, role) for role in ROLES} - {None})
        for route in routes
    ]
    if not named:
        return {}
    return {
        (row.use_case, row.version): dataclasses.replace(plain(Model, row), manifest={})
        for row in session.scalars(select(ModelRow).where(or_(*named)))
    }


def _releases(session: Session, routes: Collection[Route]) -> dict[str, Release]:
    named = [
        (ReleaseRow.use_case == route.use_case) & (ReleaseRow.id == route.release_id)
        for route in routes
        if route.release_id is not None
    ]
    if not named:
        return {}
    rows = select(ReleaseRow).where(or_(*named), ReleaseRow.state.in_(LIVING))
    return {
        row.use_case: dataclasses.replace(plain(Release, row), verdicts=[], revision=0)
        for row in session.scalars(rows)
    }


def _beats(session: Session, releases: Mapping[str, Release]) -> dict[str, Beat]:
    if not releases:
        return {}
    rows = select(ReleaseBeatRow).where(ReleaseBeatRow.use_case.in_(sorted(releases)))
    return {
        row.use_case: plain(Beat, row)
        for row in session.scalars(rows)
        if row.release_id == releases[row.use_case].id
    }


def _restored(session: Session) -> int:
    """Return the number of the audit row that the last restore left."""
    rows = select(func.max(AuditRow.sequence)).where(AuditRow.action == RESTORED)
    return session.scalar(rows) or 0


def _reset(session: Session, names: Collection[str], since: int) -> frozenset[str]:
    if not names:
        return frozenset()
    entries = select(AuditRow.use_case).where(
        AuditRow.action == RESET,
        AuditRow.use_case.in_(sorted(names)),
        AuditRow.sequence > since,
    )
    return frozenset(session.scalars(entries.distinct()))
