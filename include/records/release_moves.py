"""Check and write what moves of a release have in common; the routing row is locked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict
from include.records import audit, probation_rows
from include.records.audit import AuditEntry
from include.records.release_rows import Release, end, find_locked, is_named
from include.records.release_rules import (
    admit,
    expect_judged_since_rollback,
    expect_no_newer_release,
    expect_state,
)
from include.records.route_changes import HOME, apply, set_state, watched_id
from include.records.rows import database_now
from include.records.schema import ModelRow, ReleaseGuardRow, ReleaseRow, RouteRow

WITHOUT = "taken back by a node that knows of no releases"


def told(entry: AuditEntry, release: ReleaseRow, **details: object) -> AuditEntry:
    """Return the entry with the release that it is about."""
    content = {**entry.details, **details, "release": release.id, "step": release.step}
    return dataclasses.replace(entry, details=content)


def expect_release(
    route: RouteRow,
    found: ReleaseRow | None,
    seen: Release,
    states: tuple[str, ...],
    *,
    named: bool,
) -> None:
    """Refuse a move that was decided on another state of the release.

    Raises:
        Conflict: it has moved on, or with `named` the routing row has.
    """
    about = f"{seen.use_case}: release {seen.id}"
    if found is None:
        raise Conflict(f"{about} is not on record any more; it was reset")
    if found.state not in states:
        raise Conflict(
            f"{about} is {found.state}{f' ({found.reason})' if found.reason else ''}, not "
            f"{' or '.join(states)}"
        )
    if found.revision != seen.revision:
        raise Conflict(
            f"{about} has moved on: it is {found.state} at step {found.step}, in revision "
            f"{found.revision}, not {seen.revision}; look, then try again"
        )
    if named and not is_named(route, found):
        raise Conflict(
            f"{about} is not what the routing row is about: its challenger is version "
            f"{route.challenger}, not {found.challenger}; abort the release"
        )


def expect_no_guard(session: Session, release: ReleaseRow) -> None:
    """Refuse more traffic for a model that a node's guard has taken home since it was judged.

    Raises:
        Conflict: a node has.
    """
    rows = select(ReleaseGuardRow).where(
        ReleaseGuardRow.use_case == release.use_case, ReleaseGuardRow.release_id == release.id
    )
    if (guard := session.scalars(rows.limit(1)).first()) is not None:
        raise Conflict(
            f"{release.use_case}: release {release.id} goes no further, the guard of {guard.node} "
            f"has sent its traffic home: {guard.reason}; its judge rolls it back"
        )


def expect_not_paused(release: ReleaseRow) -> None:
    """Refuse to begin a release that a person has paused while nodes tried it.

    Raises:
        Conflict: it is paused.
    """
    if release.paused:
        raise Conflict(
            f"{release.use_case}: release {release.id} of version {release.challenger} is paused; "
            f"`evergreen release unpause {release.use_case}` lets it go on"
        )


def leave(
    session: Session,
    route: RouteRow,
    release: ReleaseRow,
    changes: Mapping[str, Any],
    entry: AuditEntry,
) -> None:
    """Write that a release has ended; the routing row changes only where it says something else.

    Where it still names the release, no traffic of it is left, whoever took the challenger away.
    """
    after = dict(changes)
    if route.release_id == release.id:
        traffic = {"mode": None, "share": 0, "release_key": None}
        after |= {**traffic, "release_id": watched_id(session, route.use_case)}
    if after:
        apply(session, route, after, entry)
    else:
        audit.append(session, entry)


def end_left(session: Session, route: RouteRow, release: ReleaseRow, entry: AuditEntry) -> None:
    """End a release that the routing row is not about any more, as what became of its model."""
    held = release.challenger_digest in route.held
    end(session, release, "rolled_back" if held else "aborted", WITHOUT)
    leave(session, route, release, {}, told(entry, release, reason=WITHOUT, ended=release.state))


def abort_release(
    session: Session,
    route: RouteRow,
    release: ReleaseRow,
    reason: str,
    entry: AuditEntry,
    *,
    retire: bool,
) -> None:
    """End a release as aborted; with `retire` its model is no challenger any more either.

    Both are of one transaction: MLflow's alias would else go on showing a refused model as the one
    to come, where whoever withdraws it is killed in between.
    """
    changes = HOME if is_named(route, release) else {}
    if retire:
        set_state(session, route.use_case, release.challenger, "retired")
    end(session, release, "aborted", reason)
    leave(session, route, release, changes, told(entry, release, reason=reason))


def last_good_before(session: Session, row: RouteRow) -> int | None:
    """Return the champion that is replaced; if it is on hold, the one that was good before it.

    So where it has regressed on probation: the next review finds it not good.
    """
    champion = None if row.champion is None else session.get(ModelRow, (row.use_case, row.champion))
    if champion is None or champion.model_digest in row.held:
        return row.previous
    if probation_rows.is_found(session, row.use_case, champion.model_digest, "regressed"):
        return row.previous
    return champion.version


def promote_challenger(
    session: Session,
    row: RouteRow,
    found: ReleaseRow,
    description: Mapping[str, Any] | None,
    entry: AuditEntry,
) -> None:
    """Make the challenger of a release champion; see `Releases.promote`."""
    expect_no_guard(session, found)
    expect_state(row, None, found.champion)
    expect_no_newer_release(row, found.partition)
    expect_judged_since_rollback(row, found.opponent_generation)
    admit(session, row, found.challenger)
    settled = find_locked(session, row.use_case, "watched")
    if settled is not None:
        end(session, settled, "promoted", f"followed by release {found.id}")
    changes = {
        **HOME,
        "champion": found.challenger,
        "previous": last_good_before(session, row),
        "watermark": found.partition,
        **({} if description is None else {"description": dict(description)}),
    }
    set_state(session, row.use_case, found.challenger, "released")
    was_in_steps = found.state == "running"
    found.paused = found.suspended = False
    found.step, found.entered_at = len(found.plan["steps"]), database_now(session)
    if found.plan["watch"] > 0:
        found.state = "watched"
    else:
        found.state, found.ended_at = "promoted", found.entered_at
    changes["release_id"] = found.id if found.state == "watched" else None
    session.flush()
    if was_in_steps:
        probation_rows.begin(session, found)
    details = {} if settled is None else {"settled": settled.id}
    apply(session, row, changes, told(entry, found, **details))
