"""Find files of the lake's versioned tables that no version which a record names needs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

from include.lake.tables import Lake
from include.lake.vacuum import KEPT_HOURS, Unneeded, find_unneeded, remove_unneeded, tables_below
from include.pipeline.lakes import open_lake
from include.predictions.import_segments import TABLE as PREDICTIONS
from include.retention.garbage import Garbage, Place
from include.retention.marks import pinned_versions


def find_garbage(place: Place, *, hours: int = KEPT_HOURS) -> Iterator[Garbage]:
    """Yield the tables that have files which can go; predictions have a way of their own.

    Raises:
        SourceError: the lake cannot be read.
    """
    lake = open_lake(place.settings)

    @cache
    def all_pinned() -> dict[str, set[int]]:
        return place.records.database.read(lambda session: pinned_versions(session, place.name))

    def pinned_of(table: str) -> set[int]:
        return all_pinned().get(table, set())

    for table in tables_below(lake, place.name):
        if table == f"{place.name}/{PREDICTIONS}":
            continue
        unneeded = find_unneeded(lake, table, partial(pinned_of, table), hours=hours)
        if unneeded is not None:
            yield Garbage(
                "lake",
                f"{len(unneeded.files)} files of {table}",
                unneeded.bytes,
                "no version on record names them",
                partial(_remove, lake, unneeded, hours),
            )


def _remove(lake: Lake, unneeded: Unneeded, hours: int) -> bool:
    remove_unneeded(lake, unneeded, hours=hours)
    return True
