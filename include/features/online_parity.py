"""Compare what is online of a feature set with what the offline store answers.

Both at the `as_of` of the partition that is online, for the same entities each time: a sample by a
hash of their key. Offline is asked as for a publication, from the tables as they are now; so a row
differs that was damaged, that somebody else wrote, or whose partition was computed anew without
being published again.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import Unavailable
from include.features import feature_sets
from include.features.feature_sets import FeatureSet
from include.features.online_rows import OnlineRow, OnlineSet, unpack
from include.features.online_stores import open_store
from include.features.online_sync import recorded_partitions, stored_columns
from include.features.packed_rows import PackedRows
from include.features.population import answers_at
from include.lake.tables import Lake
from include.point_in_time import partitions
from include.records.records import Records

ENTITIES = 1_000
WRITERS = ("materialize_features", "online")  # stages of the leases of who publishes


@dataclass(frozen=True)
class Parity:
    """What is online of a feature set, beside the offline store.

    `rows` says of each entity whether its row is the same; `differ` has by feature of how many
    entities it is another value. `publication` names what was online.
    """

    partition: str
    publication: str
    rows: Mapping[str, bool]
    differ: Mapping[str, int] = field(default_factory=dict)


def published(settings: Settings, use_case: str, feature_set: str) -> OnlineSet | None:
    """Return what is online of a feature set; None: nothing.

    Raises:
        Unavailable: the store does not answer.
    """
    with closing(open_store(settings, use_case)) as store:
        return store.describe(feature_set)


def compare(
    settings: Settings, lake: Lake, records: Records, use_case: UseCase, described: OnlineSet
) -> Parity:
    """Return what `ENTITIES` rows of a publication are beside the offline store.

    Raises:
        Unavailable: the store does not answer, or is being written.
        EvergreenError: the offline store cannot be asked.
    """
    _expect_no_writer(records, use_case.name)
    feature_set = feature_sets.recorded(records, use_case.name, described.feature_set)
    with closing(open_store(settings, use_case.name)) as store:
        rows = heapq.nsmallest(ENTITIES, store.rows(described.feature_set), key=_place)
        if store.describe(described.feature_set) != described:
            raise Unavailable(f"{use_case.name}: new features came online meanwhile; look again")
    offline = _offline(lake, records, use_case, feature_set, described.partition, rows)
    _expect_no_writer(records, use_case.name)  # else it may have read what is not published yet
    same: dict[str, bool] = {}
    differ: Counter[str] = Counter()
    for entity, event_ts, packed in rows:
        found = _differences(described.columns, (event_ts, packed), offline.get(entity))
        same[entity] = not found
        differ.update(found)
    return Parity(described.partition, described.digest, same, dict(differ))


def _expect_no_writer(records: Records, use_case: str) -> None:
    """Refuse to compare while tables and online rows are being written, one after the other."""
    for holder in records.leases.holders(use_case):
        if holder.stage in WRITERS and holder.lost is None:
            raise Unavailable(f"{use_case}: {holder.stage} is at work; look again when it is done")


def _offline(
    lake: Lake,
    records: Records,
    use_case: UseCase,
    feature_set: FeatureSet,
    partition: str,
    rows: Sequence[OnlineRow],
) -> dict[str, tuple[int, bytes]]:
    """Return the offline rows of the same entities, packed as they should be online."""
    digests, _ = recorded_partitions(records, use_case, partition, feature_set)
    frame = answers_at(
        lake,
        use_case,
        feature_set,
        partitions.period(use_case, partition).as_of,
        keys=list(digests),
        entities=[entity for entity, _, _ in rows],
    )
    return {
        entity: (event_ts, packed)
        for entity, event_ts, packed in PackedRows(stored_columns(frame, feature_set))
    }


def _differences(
    columns: Sequence[str], online: tuple[int, bytes], offline: tuple[int, bytes] | None
) -> list[str]:
    """Return the features that differ; their age counts as one, and so does a row that is gone."""
    if offline is None:
        return ["(no row offline)"]
    if online == offline:
        return []
    pairs = zip(columns, unpack(online[1]), unpack(offline[1]), strict=False)
    # As text: NaN equals itself, and 1 is not 1.0.
    found = [name for name, first, second in pairs if repr(first) != repr(second)]
    return found or (["(event time)"] if online[0] != offline[0] else [])


def _place(row: OnlineRow) -> tuple[int, str]:
    """Return where an entity stands in an order that has nothing to do with its key."""
    return zlib.crc32(row[0].encode("utf-8", "surrogatepass")), row[0]
