"""Change a routing row that a transaction has locked, with its audit row.

What routes and releases have in common: the row is locked first, an entry that is on record is the
very change, a refusal is on record too, every change raises the generation, and whatever takes a
model back ends the release that brought it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from include.errors import Conflict
from include.records import audit
from include.records.audit import AuditEntry
from include.records.columns import json_digest
from include.records.database import Database
from include.records.models import Model, State, last_good, models_of
from include.records.release_rows import UNDER_WAY, end, find_locked, is_named
from include.records.rows import insert_missing, locked, plain
from include.records.schema import ModelRow, RouteRow

T = TypeVar("T")

HOME: Mapping[str, Any] = {
    "challenger": None,
    "step": 0,
    "weight": 0.0,
    "mode": None,
    "share": 0,
    "release_key": None,
}
"""What a routing row says when all traffic is the champion's."""
MEANWHILE = "rolled back meanwhile"


@dataclass(frozen=True)
class Route:
    """The desired state of a use case.

    `share` is the challenger's share of traffic in basis points, `weight` the same in percent, for
    nodes of the version before; `mode` is shadow or canary, None while the challenger is only
    tried; `release_key` is the secret of this release's split. `release_id` is of the release under
    way, else of the one that is watched. `watermark` is the newest partition that was ever
    released; `held` are digests that may not serve; `rollback_generation` is the generation of the
    last rollback; `description` is what a node must know of the use case
    (`include.deployment.description`).
    """

    use_case: str
    champion: int | None = None
    previous: int | None = None
    challenger: int | None = None
    step: int = 0
    weight: float = 0.0
    salt: str = ""
    generation: int = 0
    watermark: str | None = None
    rollback_generation: int = 0
    held: list[str] = dataclasses.field(default_factory=list)
    description: dict[str, Any] | None = None
    release_id: str | None = None
    mode: str | None = None
    share: int = 0
    release_key: str | None = dataclasses.field(default=None, repr=False)


def decide(
    database: Database,
    use_case: str,
    work: Callable[[Session, RouteRow], T],
    entry: AuditEntry,
    *,
    done: Callable[[Session, RouteRow], T],
    session: Session | None = None,
    first: bool = True,
) -> T:
    """Run `work` on the locked routing row, or `done` if the entry is on record; audit a refusal.

    The entry needs its `once`. With `first` a row is made where there is none.
    """

    def attempt(open_session: Session) -> T:
        row = locked(open_session, RouteRow, use_case)
        if row is None and first:
            row = _first_route(open_session, use_case)
        if row is None:
            raise Conflict(
                f"{use_case}: nothing was ever released, so there is nothing to take back"
            )
        if entry.once is not None and audit.is_recorded(open_session, entry.once):
            return done(open_session, row)
        return work(open_session, row)

    try:
        return database.write(attempt, session)
    except Conflict as error:
        if session is None:
            named = f"{entry.refused_once}/{json_digest(str(error))}"
            refusal = dataclasses.replace(
                entry,
                action=f"{entry.action}.refused",
                details={**entry.details, "reason": str(error)},
                once=uuid.uuid4().hex if entry.refused_once is None else named,
            )
            database.write(lambda open_session: audit.append(open_session, refusal))
        raise


def apply(session: Session, row: RouteRow, changes: Mapping[str, Any], entry: AuditEntry) -> Route:
    """Write changes into the row and raise its generation; the audit row says what was before.

    The key of a release is a secret, and is not told.
    """
    before = {name: getattr(row, name) for name in changes if getattr(row, name) != changes[name]}
    for name in before:
        setattr(row, name, changes[name])
    row.generation += 1
    session.flush()
    told = [name for name in before if name != "release_key"]
    details = {
        **entry.details,
        "generation": row.generation,
        "before": {name: before[name] for name in told},
        "after": {name: changes[name] for name in told},
    }
    audit.append(session, dataclasses.replace(entry, details=details))
    return plain(Route, row)


def take_back(
    session: Session,
    row: RouteRow,
    entry: AuditEntry,
    of: str,
    *,
    reason: str | None = None,
    by_itself: bool = False,
) -> Route:
    """Retire the champion or the challenger of a locked row, hold its digest, and go back.

    The release of that model ends as rolled back; another one under way ends as aborted, since it
    was judged against what is taken back now.
    """
    use_case, bad_version = row.use_case, getattr(row, of)
    model = None
    if bad_version is not None:
        model = set_state(session, use_case, bad_version, "retired")
    changes: dict[str, Any] = {
        **HOME,
        **on_hold(session, row, *([] if model is None else [model.model_digest])),
        "rollback_generation": row.generation + 1,
    }
    good = changes.get("previous", row.previous)
    if bad_version is None or (of == "champion" and good is None):
        missing = (
            "challenger to take back" if of == "challenger" else "earlier champion to go back to"
        )
        raise Conflict(f"{use_case}: there is no {missing}; what serves goes on serving")
    if of == "champion":
        changes["champion"] = good
        changes["previous"] = last_good(models_of(session, use_case), changes["held"], good)
    told = reason or str(entry.details.get("reason") or "rolled back")
    ended = _end_releases(session, row, of, told, by_itself=by_itself)
    changes["release_id"] = watched_id(session, use_case)
    told_entry = dataclasses.replace(entry, details={**entry.details, **ended})
    return apply(session, row, changes, told_entry)


def on_hold(session: Session, row: RouteRow, *digests: str) -> dict[str, Any]:
    """Return what a routing row says once digests are on hold: no rollback goes to one of them."""
    held = sorted({*row.held, *digests})
    changes: dict[str, Any] = {"held": held}
    previous = None if row.previous is None else session.get(ModelRow, (row.use_case, row.previous))
    if previous is not None and previous.model_digest in held:
        changes["previous"] = last_good(models_of(session, row.use_case), held, row.champion)
    return changes


def _end_releases(
    session: Session, row: RouteRow, of: str, reason: str, *, by_itself: bool
) -> dict[str, Any]:
    """End what a rollback of a role ends; return what the audit row says of it.

    One that waits was trained before the rollback, so it could never start.
    """
    told: dict[str, Any] = {}
    under_way = find_locked(session, row.use_case, *UNDER_WAY)
    if under_way is not None:
        if of == "challenger" and under_way.challenger == row.challenger:
            end(session, under_way, "rolled_back", reason, by_itself=by_itself)
            told["release"] = under_way.id
        else:
            end(session, under_way, "aborted", MEANWHILE)
            told["aborted"] = under_way.id
    watched = find_locked(session, row.use_case, "watched")
    if of == "champion" and watched is not None and is_named(row, watched):
        end(session, watched, "rolled_back", reason, by_itself=by_itself)
        told["release"] = watched.id
    waiting = find_locked(session, row.use_case, "waiting")
    if waiting is not None:
        end(session, waiting, "aborted", "trained before a rollback")
        told["waited"] = waiting.id
    return told


def watched_id(session: Session, use_case: str) -> str | None:
    """Return which release a routing row names where none is under way."""
    watched = find_locked(session, use_case, "watched")
    return None if watched is None else watched.id


def set_state(session: Session, use_case: str, version: int, state: State) -> Model | None:
    """Set the state of a model and return it, or None if it is not on record."""
    row = locked(session, ModelRow, use_case, version)
    if row is None:
        return None
    row.state = state
    session.flush()
    return plain(Model, row)


def salt_of(use_case: str) -> str:
    """Return what splits the traffic of a use case by entity, unlike that of any other."""
    return hashlib.sha256(use_case.encode()).hexdigest()[:16]


def _first_route(session: Session, use_case: str) -> RouteRow:
    """Insert a routing row, unless another hand is faster; return it, locked."""
    empty = vars(Route(use_case, salt=salt_of(use_case)))
    insert_missing(session, RouteRow, **empty)
    row = locked(session, RouteRow, use_case)
    assert row is not None
    return row
