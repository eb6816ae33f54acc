"""Which life of the records this is: a restore begins the next one.

A restored database repeats generations that nodes have seen of its life before. What is newer is
therefore told by (epoch, generation), never by the generation alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from include.records.database import Database
from include.records.rows import plain
from include.records.schema import EpochRow

FIRST = 1  # of a database that was never restored, which has no row
RESTORED = "installation.restored"  # the action of an epoch's first audit row


@dataclass(frozen=True, slots=True)
class Epoch:
    """When a life of the records began, and from which backup."""

    epoch: int
    backup: str
    at: datetime


def read_epoch(session: Session) -> int:
    """Return the epoch of now."""
    return session.scalar(select(func.max(EpochRow.epoch))) or FIRST


def begin_next(session: Session, *, backup: str, at: datetime) -> int:
    """Begin the next epoch, in the transaction that restores the rest; return its number."""
    epoch = read_epoch(session) + 1
    session.add(EpochRow(epoch=epoch, backup=backup, at=at))
    session.flush()
    return epoch


class Epochs:
    """The lives of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def current(self) -> int:
        """Return the epoch of now; 1 where nothing was ever restored."""
        return self._database.read(read_epoch)

    def all(self) -> list[Epoch]:
        """Return the epochs that restores began, the oldest first."""
        rows = select(EpochRow).order_by(EpochRow.epoch)
        return self._database.read(
            lambda session: [plain(Epoch, row) for row in session.scalars(rows)]
        )
