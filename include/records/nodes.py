"""Record what the serving nodes report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.records.database import Database, rows_of_use_case
from include.records.schema import (
    ObservedRow,
)


@dataclass(frozen=True)
class Observed:
    """What a serving node reports of a use case."""

    use_case: str
    node: str
    generation: int
    state: str
    detail: Any
    at: datetime


class Nodes:
    """The last report of every node."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def observe(
        self, use_case: str, node: str, *, generation: int, state: str, detail: Any, at: datetime
    ) -> None:
        """Record what a serving node serves; replaces its last report."""
        row = {
            "use_case": use_case,
            "node": node,
            "generation": generation,
            "state": state,
            "detail": detail,
            "at": at,
        }
        self._database.write(lambda session: session.merge(ObservedRow(**row)))

    def of(self, use_case: str) -> list[Observed]:
        """Return the last report of every node."""
        return rows_of_use_case(self._database, Observed, ObservedRow, use_case, ObservedRow.node)
