"""Where a use case's newest features are kept: one interface, and the store that a setting names.

Two stores have it: SQLite in the home folder, and Redis. Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol

from include.config.settings import Settings
from include.features.online_rows import OnlineRow, OnlineSet, Value
from include.features.online_store import SqliteStore


class OnlineStore(Protocol):
    """The online features of one use case, by feature set and entity.

    A publication replaces a feature set's rows as a whole: who reads sees the old ones or the new
    ones. Whatever cannot be reached raises `Unavailable`, and is never taken for nothing known.
    """

    @property
    def where(self) -> str:
        """The place, for messages; it holds no password."""

    def publish(
        self,
        described: OnlineSet,
        rows: Iterable[OnlineRow],
        *,
        check: Callable[[], None] | None = None,
        digest: Callable[[], str] | None = None,
    ) -> None:
        """Replace a feature set's rows and its watermark at once.

        `check` may still refuse right before that. `digest`, which is asked once all rows are
        taken, gives their digest in the place of the described one.

        Raises:
            Conflict: a newer partition is online, or another publication came in between.
            Unavailable: the store cannot be written.
        """

    def describe(self, feature_set: str) -> OnlineSet | None:
        """Return what is online of a feature set, or None."""

    def get(self, feature_set: str, entity: object) -> tuple[int, list[Value]] | None:
        """Return the event time (microseconds since 1970 UTC) and values of an entity, or None."""

    def rows(self, feature_set: str) -> Iterator[OnlineRow]:
        """Yield all packed rows in order of their entity's bytes, as of one moment."""

    def count(self, feature_set: str, *, since: int | None = None) -> int:
        """Return how many entities are online; with `since`, whose row is not older than that.

        It is compared with the rows' event time, in microseconds since 1970 UTC.
        """

    def shared(self, of: str, feature_set: str, *, since: tuple[int, int]) -> tuple[int, int]:
        """Return how many entities one feature set has, and how many of them another one too.

        Rows count whose event time is not before `since`, that of the one and that of the other.
        """

    def sample(self, feature_set: str, count: int, *, since: int) -> list[list[Value]]:
        """Return the stored values of some entities, as `count` counts them."""

    def remove_unneeded(self, needed: Collection[str], *, before: datetime) -> list[str]:
        """Remove the rows of feature sets that are not needed and were written before a moment.

        Returns their versions. `before` is aware.
        """

    def remove(self) -> int:
        """Remove everything of the use case; return how many feature sets that were."""

    def close(self) -> None:
        """Close what is open; the next question opens it again."""


def online_path(settings: Settings, use_case: str) -> Path:
    """Return the file of a use case's packed online rows, where they are kept in SQLite."""
    return settings.home / "online" / f"{use_case}.db"


def open_store(settings: Settings, use_case: str) -> OnlineStore:
    """Return the store of a use case's online features; nothing is asked of it yet.

    Raises:
        ConfigError: the setting names no store that there is.
    """
    if settings.online_url.get_secret_value():
        from include.features.online_redis import RedisStore

        return RedisStore(settings, use_case)
    return SqliteStore(online_path(settings, use_case))
