"""The records of what serves: models, the routing row, nodes, feature sets, online watermarks, opponents.

The part of `include.records.records.Records` that decides what users get.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict
from include.records import audit, routes
from include.records.audit import AuditEntry
from include.records.database import Database
from include.records.routes import UNSET, Mode, Model, Route, Unset
from include.records.schema import (
    FeatureSetRow,
    ModelRow,
    ObservedRow,
    OnlineRow,
    OpponentRow,
    insert_missing,
    locked,
    plain,
    to_json,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Observed:
    """What a serving node reports of a use case."""

    use_case: str
    node: str
    generation: int
    state: str
    detail: Any
    at: datetime


@dataclass(frozen=True)
class FeatureSet:
    """A version of a use case's features: its definitions with their SQL."""

    use_case: str
    version: str
    definition: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Opponent:
    """Whom a candidate is judged against: `version` None is nobody; `generation` is the routing row's at that time."""

    use_case: str
    model_digest: str
    mode: str
    version: int | None
    generation: int
    partition: str
    at: datetime


class ServingRecords:
    """Models, routes and what belongs to them, in one database."""

    database: Database

    # models and the routing row

    def add_model(self, model: Model, *, session: Session | None = None) -> Model:
        """Record a model; raises Conflict if its version is another model's."""
        return self.database.write(lambda open_session: routes.add_model(open_session, model), session)

    def update_model(self, use_case: str, version: int, *, session: Session | None = None, **changes: Any) -> Model:
        """Change a model's bundle, run_id, bento_tag, pins, state or manifest."""
        return self.database.write(lambda open_session: routes.update_model(open_session, use_case, version, changes), session)

    def model(self, use_case: str, version: int) -> Model | None:
        """Return a model by its version."""
        row = self.database.read(lambda session: session.get(ModelRow, (use_case, version)))
        return None if row is None else plain(Model, row)

    def models(self, use_case: str) -> list[Model]:
        """Return the models of a use case, by version."""
        return self.database.read(lambda session: routes.models(session, use_case))

    def route(self, use_case: str) -> Route:
        """Return the routing row; generation 0 where nothing was ever released."""
        return self.database.read(lambda session: routes.route(session, use_case))

    def change_route(
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
        """Change champion, previous, challenger, step, weight or salt by compare-and-set; see `routes.change`.

        A refusal is audited too (as `<action>.refused`), unless it happens in a transaction of the caller's.

        Raises:
            Conflict: the routing row has moved on, or the model may not enter.
        """
        return self._route_change(
            lambda open_session, once: routes.change(
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
        """Go back to the last good champion, or drop the challenger, and hold the digest; see `routes.rollback`."""
        return self._route_change(
            lambda session, once: routes.rollback(session, use_case, entry=once, expect_generation=expect_generation, of=of),
            entry,
        )

    def lift_hold(self, use_case: str, digest: str, *, entry: AuditEntry, expect_generation: int | None = None) -> Route:
        """Lift the hold on a digest, as a person decided; see `routes.lift`."""
        return self._route_change(
            lambda session, once: routes.lift(session, use_case, digest, entry=once, expect_generation=expect_generation), entry
        )

    def _route_change(
        self, work: Callable[[Session, AuditEntry], Route], entry: AuditEntry, session: Session | None = None
    ) -> Route:
        once = named(entry)
        try:
            return self.database.write(lambda open_session: work(open_session, once), session)
        except Conflict as error:
            if session is None:
                details = {**entry.details, "reason": str(error)}
                refused = named(dataclasses.replace(entry, action=f"{entry.action}.refused", details=details, once=None))
                self.database.write(lambda open_session: audit.append(open_session, refused))
            raise

    def observe(self, use_case: str, node: str, *, generation: int, state: str, detail: Any, at: datetime) -> None:
        """Record what a serving node serves; replaces its last report."""
        row = {"use_case": use_case, "node": node, "generation": generation, "state": state, "detail": detail, "at": at}
        self.database.write(lambda session: session.merge(ObservedRow(**row)))

    def observed(self, use_case: str) -> list[Observed]:
        """Return the last report of every node."""
        return self._list(Observed, ObservedRow, use_case, ObservedRow.node)

    # features, online rows, opponents

    def add_feature_set(
        self, use_case: str, version: str, definition: Mapping[str, Any], *, session: Session | None = None
    ) -> FeatureSet:
        """Record a feature set; raises Conflict if the version has another definition."""

        def work(open_session: Session) -> FeatureSet:
            insert_missing(open_session, FeatureSetRow, use_case=use_case, version=version, definition=dict(definition))
            there = plain(FeatureSet, open_session.get_one(FeatureSetRow, (use_case, version)))
            if to_json(there.definition, sort=True) != to_json(definition, sort=True):
                raise Conflict(
                    f"{use_case}: feature set {version} has another definition on record; a new one needs a new version"
                )
            return there

        return self.database.write(work, session)

    def feature_set(self, use_case: str, version: str) -> FeatureSet | None:
        """Return a feature set by its version."""
        row = self.database.read(lambda session: session.get(FeatureSetRow, (use_case, version)))
        return None if row is None else plain(FeatureSet, row)

    def feature_sets(self, use_case: str) -> list[FeatureSet]:
        """Return the feature sets of a use case, by version."""
        return self._list(FeatureSet, FeatureSetRow, use_case, FeatureSetRow.version)

    def online(self, use_case: str, feature_set: str) -> str | None:
        """Return the partition whose rows are online, or None."""
        return self.database.read(
            lambda session: session.scalar(
                select(OnlineRow.key).where(OnlineRow.use_case == use_case, OnlineRow.feature_set == feature_set)
            )
        )

    def advance_online(
        self, use_case: str, feature_set: str, key: str, expect: str | None, *, session: Session | None = None
    ) -> None:
        """Move the online watermark from `expect` to `key`; it is there already: a no-op.

        Raises:
            Conflict: the watermark is not `expect`, or `key` is older.
        """

        def work(open_session: Session) -> None:
            insert_missing(open_session, OnlineRow, use_case=use_case, feature_set=feature_set, key=None)
            row = locked(open_session, OnlineRow, use_case, feature_set)
            assert row is not None
            if row.key == key:
                return
            if row.key != expect or (row.key is not None and key < row.key):
                raise Conflict(
                    f"{use_case}: online rows of {feature_set} are of {row.key}, not of {expect}; {key} may not replace them"
                )
            row.key = key

        self.database.write(work, session)

    def opponent(self, use_case: str, model_digest: str, *, mode: Mode) -> Opponent | None:
        """Return whom a candidate was judged against, or None if it never was."""
        row = self.database.read(lambda session: session.get(OpponentRow, (use_case, model_digest, mode)))
        return None if row is None else plain(Opponent, row)

    def record_opponent(self, opponent: Opponent, *, again: bool = False, session: Session | None = None) -> Opponent:
        """Record whom a candidate is judged against and return it: the first record stays, unless it is judged `again`."""

        def work(open_session: Session) -> Opponent:
            created = insert_missing(open_session, OpponentRow, **vars(opponent))
            if again and not created:
                open_session.merge(OpponentRow(**vars(opponent)))
                open_session.flush()
            return plain(Opponent, open_session.get_one(OpponentRow, (opponent.use_case, opponent.model_digest, opponent.mode)))

        return self.database.write(work, session)

    def _list(self, kind: type[T], table: type[Any], use_case: str, *order: Any, where: Sequence[Any] = ()) -> list[T]:
        statement = select(table).where(table.use_case == use_case, *where).order_by(*order)
        return self.database.read(lambda session: [plain(kind, row) for row in session.scalars(statement)])


def named(entry: AuditEntry) -> AuditEntry:
    """Return the entry with a name of its own, so that a retry after a lost answer finds it on record."""
    return entry if entry.once is not None else dataclasses.replace(entry, once=uuid.uuid4().hex)
