"""Record the versions of a use case's features, and which partition's rows are online."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict
from include.records.columns import to_json
from include.records.database import Database, rows_of_use_case
from include.records.rows import insert_missing, locked, plain
from include.records.schema import FeatureSetRow, OnlineRow


@dataclass(frozen=True)
class FeatureSetRecord:
    """A version of a use case's features: its definitions with their SQL."""

    use_case: str
    version: str
    definition: dict[str, Any] = field(default_factory=dict)


class FeatureSets:
    """The feature sets of all use cases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        use_case: str,
        version: str,
        definition: Mapping[str, Any],
        *,
        session: Session | None = None,
    ) -> FeatureSetRecord:
        """Record a feature set; the same version with the same definition is a no-op.

        Raises:
            Conflict: the version has another definition.
        """

        def work(open_session: Session) -> FeatureSetRecord:
            insert_missing(
                open_session,
                FeatureSetRow,
                use_case=use_case,
                version=version,
                definition=dict(definition),
            )
            record = plain(
                FeatureSetRecord, open_session.get_one(FeatureSetRow, (use_case, version))
            )
            if to_json(record.definition, sort=True) != to_json(definition, sort=True):
                raise Conflict(
                    f"{use_case}: feature set {version} has another definition on record; a new "
                    "one needs a new version"
                )
            return record

        return self._database.write(work, session)

    def get(self, use_case: str, version: str) -> FeatureSetRecord | None:
        """Return a feature set by its version."""
        row = self._database.read(lambda session: session.get(FeatureSetRow, (use_case, version)))
        return None if row is None else plain(FeatureSetRecord, row)

    def of(self, use_case: str) -> list[FeatureSetRecord]:
        """Return the feature sets of a use case, by version."""
        return rows_of_use_case(
            self._database, FeatureSetRecord, FeatureSetRow, use_case, FeatureSetRow.version
        )

    def online(self, use_case: str, feature_set: str) -> str | None:
        """Return the key of the partition whose rows are online, or None."""
        return self._database.read(
            lambda session: session.scalar(
                select(OnlineRow.key).where(
                    OnlineRow.use_case == use_case, OnlineRow.feature_set == feature_set
                )
            )
        )

    def advance(
        self,
        use_case: str,
        feature_set: str,
        key: str,
        expect: str | None,
        *,
        session: Session | None = None,
    ) -> None:
        """Move the online watermark from `expect` to `key`; where it is at `key`, nothing happens.

        Raises:
            Conflict: the watermark is not `expect`, or `key` is older.
        """

        def work(open_session: Session) -> None:
            insert_missing(
                open_session, OnlineRow, use_case=use_case, feature_set=feature_set, key=None
            )
            row = locked(open_session, OnlineRow, use_case, feature_set)
            assert row is not None
            if row.key == key:
                return
            if row.key != expect or (row.key is not None and key < row.key):
                raise Conflict(
                    f"{use_case}: online rows of {feature_set} are of {row.key}, not of {expect}; "
                    f"{key} may not replace them"
                )
            row.key = key

        self._database.write(work, session)
