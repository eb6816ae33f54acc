"""Start a release, or queue one behind another; the routing row is locked."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict
from include.records import audit
from include.records.audit import AuditEntry
from include.records.models import Model
from include.records.release_moves import WITHOUT, told
from include.records.release_reports import read_freeze
from include.records.release_rows import UNDER_WAY, end, find_locked, is_named
from include.records.release_rules import (
    admit,
    expect_judged_since_rollback,
    expect_no_newer_release,
    expect_state,
)
from include.records.route_changes import HOME, apply, set_state
from include.records.rows import database_now
from include.records.schema import AuditRow, ModelRow, ReleaseRow, RouteRow


@dataclass(frozen=True)
class Start:
    """What is to be released: a model that passed its gates, whom it was judged against and when.

    `judged_generation` is that of the routing row then; `plan` is `ReleasePlan.plain()`,
    `description` what a node must know of the use case.
    """

    partition: str
    model: Model
    opponent: int | None
    judged_generation: int
    plan: Mapping[str, Any]
    description: Mapping[str, Any] | None


def start_release(session: Session, row: RouteRow, start: Start, entry: AuditEntry) -> ReleaseRow:
    """Let the nodes try a model; see `Releases.request`."""
    if (same := _expect_none_under_way(session, row, start.model)) is not None:
        return same
    if (frozen := read_freeze(session, row.use_case)) is not None:
        raise Conflict(
            f"{row.use_case}: no release starts until {frozen.until:%Y-%m-%d %H:%M} UTC, says "
            f"{frozen.actor}: {frozen.reason}; `evergreen release thaw` lifts that"
        )
    expect_state(row, None, start.opponent)
    release = _queue(session, _admit_release(session, row, start), start)
    release.state = "trying"
    set_state(session, row.use_case, start.model.version, "challenger")
    changes = {
        **HOME,
        "challenger": start.model.version,
        "release_id": release.id,
        "release_key": secrets.token_hex(16),
    }
    if row.description is None and start.description is not None:
        changes["description"] = dict(start.description)
    apply(session, row, changes, told(entry, release))
    return release


def queue_release(session: Session, row: RouteRow, start: Start, entry: AuditEntry) -> ReleaseRow:
    """Queue a model behind the release under way; see `Releases.wait`."""
    under_way = find_locked(session, row.use_case, *UNDER_WAY)
    if under_way is not None and under_way.challenger == start.model.version:
        return under_way
    if under_way is None and read_freeze(session, row.use_case) is None:
        # Whoever ended it has looked for what waits already: nobody would start this one.
        raise Conflict(
            f"{row.use_case}: no release is under way any more that version {start.model.version} "
            "could wait for; request it again, and it starts"
        )
    waiting = find_locked(session, row.use_case, "waiting")
    if waiting is not None and waiting.challenger == start.model.version:
        return waiting
    if waiting is not None and waiting.partition > start.partition:
        raise Conflict(
            f"{row.use_case}: version {waiting.challenger} of {waiting.partition} waits, which is "
            f"newer than {start.partition}"
        )
    release = _queue(session, _admit_release(session, row, start), start)
    audit.append(session, told(entry, release))
    return release


def recorded_release(session: Session, entry: AuditEntry) -> ReleaseRow:
    """Return the release that the entry on record started.

    Raises:
        Conflict: it was reset meanwhile.
    """
    details = session.scalars(select(AuditRow.details).where(AuditRow.once == entry.once)).one()
    release_id = json.loads(details).get("release", "")
    row = session.get(ReleaseRow, (entry.use_case, release_id))
    if row is None:
        raise Conflict(f"{entry.use_case}: release {release_id} was reset meanwhile")
    return row


def _expect_none_under_way(session: Session, row: RouteRow, model: Model) -> ReleaseRow | None:
    """Return the release of this very model that is under way; None: there is no release.

    One that the routing row is not about any more has been taken back, and ends here.

    Raises:
        Conflict: another release is under way.
    """
    under_way = find_locked(session, row.use_case, *UNDER_WAY)
    if under_way is None:
        return None
    if not is_named(row, under_way):
        held = under_way.challenger_digest in row.held
        end(session, under_way, "rolled_back" if held else "aborted", WITHOUT)
        return None
    if under_way.challenger == model.version:
        return under_way
    raise Conflict(
        f"{row.use_case}: release {under_way.id} of version {under_way.challenger} is under way; "
        "this one waits for its end"
    )


def _admit_release(session: Session, row: RouteRow, start: Start) -> ModelRow:
    """Return the model on record, if a release of it may start.

    Raises:
        Conflict: it may not, or the version is another model's.
    """
    model = start.model
    expect_no_newer_release(row, start.partition)
    expect_judged_since_rollback(row, start.judged_generation)
    admit(session, row, model.version)
    found = session.get_one(ModelRow, (row.use_case, model.version))
    if found.model_digest != model.model_digest:
        raise Conflict(
            f"{row.use_case}: version {model.version} is {found.model_digest}, not "
            f"{model.model_digest}; judge it again"
        )
    return found


def _queue(session: Session, model: ModelRow, start: Start) -> ReleaseRow:
    """Return a waiting release of a model: the one that is there, made anew, or a new one.

    One of another model that waits is superseded, unless its partition is newer.
    """
    now = database_now(session)
    before = find_locked(session, model.use_case, "waiting")
    row = before if before is not None and before.challenger == model.version else None
    if row is None:
        if before is not None and before.partition <= start.partition:
            newer = f"version {model.version} of {start.partition} is newer"
            end(session, before, "superseded", newer)
        row = ReleaseRow(use_case=model.use_case, id=uuid.uuid4().hex[:12], revision=0)
        session.add(row)
    row.partition, row.challenger = start.partition, model.version
    row.challenger_digest, row.bento_digest = model.model_digest, model.bento_digest
    row.signature = model.signature
    row.champion, row.opponent_generation = start.opponent, start.judged_generation
    row.plan, row.state, row.step, row.verdicts = dict(start.plan), "waiting", 0, []
    row.paused = row.suspended = row.rolled_back_by_itself = False
    row.entered_at = row.started_at = now
    row.reason, row.gap_seconds = "", 0.0
    row.revision += 1
    session.flush()
    return row
