"""Record whom each candidate is judged against."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from include.records.database import Database
from include.records.models import Mode
from include.records.rows import insert_missing, plain
from include.records.schema import OpponentRow


@dataclass(frozen=True)
class Opponent:
    """Whom a candidate is judged against.

    `version` None is nobody; `generation` is the routing row's at that time.
    """

    use_case: str
    model_digest: str
    mode: str
    version: int | None
    generation: int
    partition: str
    at: datetime


class Opponents:
    """The opponents of all candidates."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, use_case: str, model_digest: str, *, mode: Mode) -> Opponent | None:
        """Return whom a candidate was judged against, or None if it never was."""
        row = self._database.read(
            lambda session: session.get(OpponentRow, (use_case, model_digest, mode))
        )
        return None if row is None else plain(Opponent, row)

    def record(
        self, opponent: Opponent, *, again: bool = False, session: Session | None = None
    ) -> Opponent:
        """Record whom a candidate is judged against, and return what is on record then.

        The first record stays, unless the candidate is judged `again`.
        """

        def work(open_session: Session) -> Opponent:
            created = insert_missing(open_session, OpponentRow, **vars(opponent))
            if again and not created:
                open_session.merge(OpponentRow(**vars(opponent)))
                open_session.flush()
            return plain(
                Opponent,
                open_session.get_one(
                    OpponentRow, (opponent.use_case, opponent.model_digest, opponent.mode)
                ),
            )

        return self._database.write(work, session)
