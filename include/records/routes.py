"""Models and the routing row: what serves, what served before, what may serve next.

A routing row changes by compare-and-set only, together with its audit row: `change` for a promotion
or a step, `rollback` and `lift` for what a person decides. The partition watermark never falls;
every change raises the generation.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict, EvergreenError
from include.records import audit
from include.records.audit import AuditEntry, named
from include.records.database import Database
from include.records.models import Model, State, models
from include.records.schema import ModelRow, OpponentRow, RouteRow, insert_missing, locked, plain

CHANGEABLE = ("champion", "previous", "challenger", "step", "weight", "salt")


class Unset(Enum):
    """The value of an expectation that is not stated (None states that there is none)."""

    UNSET = "unset"


UNSET = Unset.UNSET


@dataclass(frozen=True)
class Route:
    """The desired state of a use case; `weight` is the challenger's share of traffic in percent."""

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


def route(session: Session, use_case: str) -> Route:
    """Return the routing row; generation 0 where nothing was ever released."""
    row = session.get(RouteRow, use_case)
    return Route(use_case, salt=_salt(use_case)) if row is None else plain(Route, row)


def change(
    session: Session,
    use_case: str,
    *,
    entry: AuditEntry,
    changes: Mapping[str, Any],
    expect_generation: int | None = None,
    expect_champion: int | Unset | None = UNSET,
    partition: str | None = None,
    judged_generation: int | None = None,
) -> Route:
    """Change the routing row and append the audit row, if the row is still what the caller has
    seen.

    A model enters (as champion or challenger) only if it is recorded, its digest is not held, and
    it was neither trained nor judged before the last rollback. An entry whose `once` is on record
    is this very change: nothing happens again.

    Raises:
        Conflict: any of this does not hold; names what moved on.
    """
    row = _locked_route(session, use_case)
    if entry.once is not None and audit.known(session, entry.once):
        return plain(Route, row)
    unknown = sorted(set(changes) - set(CHANGEABLE))
    if unknown:
        raise EvergreenError(
            f"route of {use_case}: {unknown} cannot be set; what can is {list(CHANGEABLE)}"
        )
    if not 0 <= float(changes.get("weight", 0.0)) <= 100:
        raise EvergreenError(
            f"route of {use_case}: weight {changes['weight']} is no percentage; 0 to 100"
        )
    _expect(row, expect_generation, expect_champion)
    if partition is not None and row.watermark is not None and partition < row.watermark:
        raise Conflict(
            f"{use_case}: partition {partition} is older than {row.watermark}, which is live; "
            "release a newer one"
        )
    if judged_generation is not None and judged_generation < row.rollback_generation:
        last = row.rollback_generation
        raise Conflict(
            f"{use_case}: judged in generation {judged_generation}, before the rollback of "
            f"generation {last}; judge again"
        )
    for role in ("champion", "challenger"):
        version = changes.get(role)
        if version is not None and version != getattr(row, role):
            _may_enter(session, row, version)
            _set_state(
                session, use_case, version, "released" if role == "champion" else "challenger"
            )
    return _apply(session, row, {**changes, "watermark": partition or row.watermark}, entry)


def rollback(
    session: Session,
    use_case: str,
    *,
    entry: AuditEntry,
    expect_generation: int | None = None,
    of: Literal["champion", "challenger"] = "champion",
) -> Route:
    """Take the champion back for the last good one (or drop the challenger), and hold the digest of
    what is taken back.

    A challenger on its way is dropped too. The watermark stays, so an older partition cannot slip
    in; what was trained or judged before now cannot be promoted.

    Raises:
        Conflict: the generation has moved on, or there is nothing to go back to.
    """
    row = _locked_route(session, use_case)
    if entry.once is not None and audit.known(session, entry.once):
        return plain(Route, row)
    _expect(row, expect_generation, UNSET)
    bad = getattr(row, of)
    if bad is None or (of == "champion" and row.previous is None):
        missing = (
            "challenger to take back" if of == "challenger" else "earlier champion to go back to"
        )
        raise Conflict(f"{use_case}: there is no {missing}; what serves goes on serving")
    model = _set_state(session, use_case, bad, "retired")
    held = sorted({*row.held, *([] if model is None else [model.model_digest])})
    changes: dict[str, Any] = {"challenger": None, "step": 0, "weight": 0.0, "held": held}
    changes["rollback_generation"] = row.generation + 1
    if of == "champion":
        changes |= {
            "champion": row.previous,
            "previous": _last_good(session, use_case, held, row.previous),
        }
    return _apply(session, row, changes, entry)


def lift(
    session: Session,
    use_case: str,
    digest: str,
    *,
    entry: AuditEntry,
    expect_generation: int | None = None,
) -> Route:
    """Lift the hold on a digest, as a person decided: its models count as trained and judged now,
    so they may be promoted again.

    Raises:
        Conflict: the generation has moved on, or the digest is not held.
    """
    row = _locked_route(session, use_case)
    if entry.once is not None and audit.known(session, entry.once):
        return plain(Route, row)
    _expect(row, expect_generation, UNSET)
    if digest not in row.held:
        raise Conflict(f"{use_case}: {digest} is not held; held are {row.held or 'none'}")
    for model in session.scalars(
        select(ModelRow).where(ModelRow.use_case == use_case, ModelRow.model_digest == digest)
    ):
        model.generation = row.generation + 1
        model.state = "challenger"
    judged = select(OpponentRow).where(
        OpponentRow.use_case == use_case, OpponentRow.model_digest == digest
    )
    for opponent in session.scalars(judged):
        opponent.generation = row.generation + 1
    return _apply(session, row, {"held": [other for other in row.held if other != digest]}, entry)


def _locked_route(session: Session, use_case: str) -> RouteRow:
    empty = dataclasses.asdict(Route(use_case, salt=_salt(use_case)))
    insert_missing(session, RouteRow, **empty)
    row = locked(session, RouteRow, use_case)
    assert row is not None
    return row


def _expect(row: RouteRow, generation: int | None, champion: int | Unset | None) -> None:
    if generation is not None and generation != row.generation:
        raise Conflict(
            f"{row.use_case}: the routing row is at generation {row.generation}, not "
            f"{generation}: look, then rerun"
        )
    if not isinstance(champion, Unset) and champion != row.champion:
        raise Conflict(
            f"{row.use_case}: the champion is {row.champion}, not {champion}; judge the candidate "
            "again"
        )


def _may_enter(session: Session, row: RouteRow, version: int) -> None:
    model = session.get(ModelRow, (row.use_case, version))
    if model is None:
        raise Conflict(
            f"{row.use_case}: there is no model version {version} on record; train it first"
        )
    if model.model_digest in row.held:
        raise Conflict(
            f"{row.use_case}: version {version} ({model.model_digest}) was rolled back and is on "
            f"hold; `evergreen rollback {row.use_case} --release {model.model_digest}` lifts that"
        )
    if version != row.previous and model.generation < row.rollback_generation:
        raise Conflict(
            f"{row.use_case}: version {version} was trained in generation {model.generation}, "
            f"before the rollback of generation {row.rollback_generation}; train a new candidate"
        )


def _last_good(
    session: Session, use_case: str, held: list[str], champion: int | None
) -> int | None:
    """Return the newest other version that was released and never taken back."""
    good = [
        model
        for model in models(session, use_case)
        if model.state == "released" and model.model_digest not in held
    ]
    return max((model.version for model in good if model.version != champion), default=None)


def _apply(session: Session, row: RouteRow, changes: Mapping[str, Any], entry: AuditEntry) -> Route:
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
    row = locked(session, ModelRow, use_case, version)
    if row is None:
        return None
    row.state = state
    session.flush()
    return plain(Model, row)


def _salt(use_case: str) -> str:
    return hashlib.sha256(use_case.encode()).hexdigest()[:16]


class Routes:
    """The routing rows of all use cases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, use_case: str) -> Route:
        """Return the routing row; generation 0 where nothing was ever released."""
        return self._database.read(lambda session: route(session, use_case))

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
        """Change champion, previous, challenger, step, weight or salt by compare-and-set; see the
        function `change`.

        A refusal is audited too (as `<action>.refused`), unless it happens in a transaction of the
        caller's.

        Raises:
            Conflict: the routing row has moved on, or the model may not enter.
        """
        return self._change(
            lambda open_session, once: change(
                open_session,
                use_case,
                entry=once,
                changes=set,
                expect_generation=expect_generation,
                expect_champion=expect_champion,
                partition=partition,
                judged_generation=judged_generation,
            ),
            entry,
            session,
        )

    def rollback(
        self,
        use_case: str,
        *,
        entry: AuditEntry,
        expect_generation: int | None = None,
        of: Literal["champion", "challenger"] = "champion",
    ) -> Route:
        """Go back to the last good champion, or drop the challenger, and hold the digest; see
        the function `rollback`.
        """
        return self._change(
            lambda session, once: rollback(
                session, use_case, entry=once, expect_generation=expect_generation, of=of
            ),
            entry,
        )

    def lift(
        self, use_case: str, digest: str, *, entry: AuditEntry, expect_generation: int | None = None
    ) -> Route:
        """Lift the hold on a digest, as a person decided; see the function `lift`."""
        return self._change(
            lambda session, once: lift(
                session, use_case, digest, entry=once, expect_generation=expect_generation
            ),
            entry,
        )

    def _change(
        self,
        work: Callable[[Session, AuditEntry], Route],
        entry: AuditEntry,
        session: Session | None = None,
    ) -> Route:
        once = named(entry)
        try:
            return self._database.write(lambda open_session: work(open_session, once), session)
        except Conflict as error:
            if session is None:
                details = {**entry.details, "reason": str(error)}
                refused = named(
                    dataclasses.replace(
                        entry, action=f"{entry.action}.refused", details=details, once=None
                    )
                )
                self._database.write(lambda open_session: audit.append(open_session, refused))
            raise
