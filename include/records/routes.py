"""Change the routing row: which model serves, which served before, which may serve next.

A routing row changes by compare-and-set only, together with its audit row: `change` for a promotion
or a step, `rollback` and `lift` for what a person decides. The partition watermark never falls;
every change raises the generation. An entry whose `once` is on record is the very change: it does
not happen a second time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict, EvergreenError
from include.records import audit
from include.records.audit import AuditEntry, with_once
from include.records.database import Database
from include.records.models import Model, State, last_good, models_of
from include.records.release_rules import (
    UNSET,
    Unset,
    admit,
    expect_judged_since_rollback,
    expect_no_newer_release,
    expect_state,
)
from include.records.schema import ModelRow, OpponentRow, RouteRow, insert_missing, locked, plain

CHANGEABLE = ("champion", "previous", "challenger", "step", "weight", "salt", "description")


@dataclass(frozen=True)
class Route:
    """The desired state of a use case.

    `weight` is the challenger's share of traffic in percent; `watermark` the newest partition that
    was ever released; `held` are digests that may not serve; `rollback_generation` is the
    generation of the last rollback; `description` is what a node must know of the use case
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


class Routes:
    """The routing rows of all use cases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, use_case: str) -> Route:
        """Return the routing row; generation 0 where nothing was ever released."""

        def work(session: Session) -> Route:
            row = session.get(RouteRow, use_case)
            return Route(use_case, salt=_salt(use_case)) if row is None else plain(Route, row)

        return self._database.read(work)

    def names(self) -> list[str]:
        """Return the use cases that have a routing row."""
        rows = select(RouteRow.use_case).order_by(RouteRow.use_case)
        return self._database.read(lambda session: list(session.scalars(rows)))

    def without_description(self) -> list[str]:
        """Return the use cases whose row says nothing of them, as an earlier version wrote it."""
        rows = select(RouteRow).order_by(RouteRow.use_case)
        return self._database.read(
            lambda session: [
                row.use_case for row in session.scalars(rows) if row.description is None
            ]
        )

    def change(
        self,
        use_case: str,
        *,
        set: Mapping[str, Any],
        entry: AuditEntry,
        expect_generation: int | None = None,
        expect_champion: int | Unset | None = UNSET,
        partition: str | None = None,
        judged_generation: int | None = None,
        session: Session | None = None,
    ) -> Route:
        """Change the routing row and append the audit row, if the row is as the caller has seen it.

        `set` may hold what is CHANGEABLE. A model enters (as champion or challenger) only if it is
        recorded, its digest is not held, and it was neither trained nor judged before the last
        rollback. A refusal is audited too (as `<action>.refused`), unless it happens in a
        transaction of the caller's.

        Raises:
            Conflict: any of this does not hold; names what moved on.
            EvergreenError: something else was to be set, or a weight outside of 0 to 100.
        """
        _check_values(use_case, set)

        def work(open_session: Session, row: RouteRow, entry: AuditEntry) -> Route:
            expect_state(row, expect_generation, expect_champion)
            expect_no_newer_release(row, partition)
            expect_judged_since_rollback(row, judged_generation)
            states: dict[str, State] = {"champion": "released", "challenger": "challenger"}
            for role, state in states.items():
                version = set.get(role)
                if version is not None and version != getattr(row, role):
                    admit(open_session, row, version)
                    _set_state(open_session, use_case, version, state)
            changes = {**set, "watermark": partition or row.watermark}
            return _apply(open_session, row, changes, entry)

        return self._decide(use_case, work, entry, session)

    def rollback(
        self,
        use_case: str,
        *,
        entry: AuditEntry,
        expect_generation: int | None = None,
        of: Literal["champion", "challenger"] = "champion",
    ) -> Route:
        """Go back to the last good champion (or drop the challenger), and hold the bad digest.

        A challenger on its way is dropped too. The watermark stays, so an older partition cannot
        slip in; what was trained or judged before now cannot be promoted.

        Raises:
            Conflict: the generation has moved on, or there is nothing to go back to.
        """

        def work(session: Session, row: RouteRow, entry: AuditEntry) -> Route:
            expect_state(row, expect_generation, UNSET)
            return _take_back(session, row, entry, of)

        return self._decide(use_case, work, entry)

    def take_back_digest(self, use_case: str, digest: str, *, entry: AuditEntry) -> Route:
        """Roll a digest back that is champion or challenger now; else only put it on hold.

        For a rollback that is recorded late: what was released meanwhile stays, and the entry is
        then one of its own (`<action>_late`).
        """

        def work(session: Session, row: RouteRow, entry: AuditEntry) -> Route:
            serving = {
                role: session.get(ModelRow, (use_case, version))
                for role in ("champion", "challenger")
                if (version := getattr(row, role)) is not None
            }
            of = next(
                (role for role, model in serving.items() if model and model.model_digest == digest),
                None,
            )
            if of == "challenger" or (of == "champion" and row.previous is not None):
                return _take_back(session, row, entry, of)
            late = dataclasses.replace(entry, action=f"{entry.action}_late")
            return _apply(session, row, {"held": sorted({*row.held, digest})}, late)

        return self._decide(use_case, work, entry)

    def lift(
        self, use_case: str, digest: str, *, entry: AuditEntry, expect_generation: int | None = None
    ) -> Route:
        """Lift the hold on a digest, as a person decided.

        Its models count as trained and judged now, so they may be promoted again.

        Raises:
            Conflict: the generation has moved on, or the digest is not held.
        """

        def work(session: Session, row: RouteRow, entry: AuditEntry) -> Route:
            expect_state(row, expect_generation, UNSET)
            if digest not in row.held:
                raise Conflict(f"{use_case}: {digest} is not held; held are {row.held or 'none'}")
            models = select(ModelRow).where(
                ModelRow.use_case == use_case, ModelRow.model_digest == digest
            )
            for model in session.scalars(models):
                model.generation = row.generation + 1
                model.state = "challenger"
            judgements = select(OpponentRow).where(
                OpponentRow.use_case == use_case, OpponentRow.model_digest == digest
            )
            for opponent in session.scalars(judgements):
                opponent.generation = row.generation + 1
            held = [other for other in row.held if other != digest]
            return _apply(session, row, {"held": held}, entry)

        return self._decide(use_case, work, entry)

    def _decide(
        self,
        use_case: str,
        work: Callable[[Session, RouteRow, AuditEntry], Route],
        entry: AuditEntry,
        session: Session | None = None,
    ) -> Route:
        """Run `work` on the locked routing row unless its entry is on record; audit a refusal."""
        entry = with_once(entry)

        def decide(open_session: Session) -> Route:
            row = _locked_route(open_session, use_case)
            if entry.once is not None and audit.is_recorded(open_session, entry.once):
                return plain(Route, row)
            return work(open_session, row, entry)

        try:
            return self._database.write(decide, session)
        except Conflict as error:
            if session is None:
                refusal = dataclasses.replace(
                    entry,
                    action=f"{entry.action}.refused",
                    details={**entry.details, "reason": str(error)},
                    once=uuid.uuid4().hex,
                )
                self._database.write(lambda open_session: audit.append(open_session, refusal))
            raise


def _take_back(session: Session, row: RouteRow, entry: AuditEntry, of: str) -> Route:
    """Retire the champion or the challenger of a locked row, hold its digest, and go back."""
    use_case, bad_version = row.use_case, getattr(row, of)
    if bad_version is None or (of == "champion" and row.previous is None):
        missing = (
            "challenger to take back" if of == "challenger" else "earlier champion to go back to"
        )
        raise Conflict(f"{use_case}: there is no {missing}; what serves goes on serving")
    model = _set_state(session, use_case, bad_version, "retired")
    held = sorted({*row.held, *([] if model is None else [model.model_digest])})
    changes: dict[str, Any] = {
        "challenger": None,
        "step": 0,
        "weight": 0.0,
        "held": held,
        "rollback_generation": row.generation + 1,
    }
    if of == "champion":
        changes["champion"] = row.previous
        changes["previous"] = last_good(models_of(session, use_case), held, row.previous)
    return _apply(session, row, changes, entry)


def _check_values(use_case: str, changes: Mapping[str, Any]) -> None:
    unknown = sorted(set(changes) - set(CHANGEABLE))
    if unknown:
        raise EvergreenError(
            f"route of {use_case}: {unknown} cannot be set; what can is {list(CHANGEABLE)}"
        )
    if not 0 <= float(changes.get("weight", 0.0)) <= 100:
        raise EvergreenError(
            f"route of {use_case}: weight {changes['weight']} is no percentage; 0 to 100"
        )


def _locked_route(session: Session, use_case: str) -> RouteRow:
    """Return the routing row, locked until the transaction ends; a first one is inserted."""
    empty = dataclasses.asdict(Route(use_case, salt=_salt(use_case)))
    insert_missing(session, RouteRow, **empty)
    row = locked(session, RouteRow, use_case)
    assert row is not None
    return row


def _apply(session: Session, row: RouteRow, changes: Mapping[str, Any], entry: AuditEntry) -> Route:
    """Write changes into the row and raise its generation; the audit row says what was before."""
    before = {name: getattr(row, name) for name in changes if getattr(row, name) != changes[name]}
    for name in before:
        setattr(row, name, changes[name])
    row.generation += 1
    session.flush()
    after = {name: changes[name] for name in before}
    details = {**entry.details, "generation": row.generation, "before": before, "after": after}
    audit.append(session, dataclasses.replace(entry, details=details))
    return plain(Route, row)


def _set_state(session: Session, use_case: str, version: int, state: State) -> Model | None:
    """Set the state of a model and return it, or None if it is not on record."""
    row = locked(session, ModelRow, use_case, version)
    if row is None:
        return None
    row.state = state
    session.flush()
    return plain(Model, row)


def _salt(use_case: str) -> str:
    """Return what splits the traffic of a use case by entity, unlike that of any other."""
    return hashlib.sha256(use_case.encode()).hexdigest()[:16]
