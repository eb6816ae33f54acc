"""Online rows: the join's answer at `as_of` over all partitions, for every feature set that a model
may be asked with.

Written to the packed table that the serving node reads, and (current set) to Feast's own table.
Each is one transaction with its own partition watermark, so a killed writer leaves the old rows,
and an older partition never replaces a newer one. What is online is compared with what should be,
every time; only differences are written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from include.config.settings import Settings
from include.errors import ConfigError, EvergreenError
from include.features import feast_mirror, feature_sets, online_store
from include.features.feature_sets import FeatureSet
from include.features.frames import answers_at, newest_column, required_at
from include.features.online_store import OnlineReader, OnlineRow, OnlineSet, OnlineView
from include.lake.digests import combine
from include.pipeline import memo
from include.pipeline.stage import StageContext
from include.point_in_time import partitions
from include.point_in_time.expiry import REMEMBERED

log = logging.getLogger(__name__)
LEASE_SECONDS = 60.0
ROWS_AT_ONCE = 50_000


def online_path(settings: Settings, use_case: str) -> Path:
    """Return the file of a use case's packed online rows."""
    return settings.home / "online" / f"{use_case}.db"


def materialize(context: StageContext, versions: Sequence[str], *, current: str) -> dict[str, Any]:
    """Bring each feature set's online rows to this partition and return what was done, by version.

    Raises: ConfigError: the partition's `as_of` is still to come; rows would hide what arrives
        until then. EvergreenError: what is online after the write is not what was written.
    """
    if context.as_of > context.started:
        raise ConfigError(
            f"{context.use_case.name} {context.key}: as_of {context.as_of} lies in the future; "
            "materialize when it has passed"
        )
    return {
        version: _bring(
            context,
            feature_sets.recorded(context.records, context.use_case.name, version),
            mirrored=version == current,
        )
        for version in versions
    }


def _bring(context: StageContext, feature_set: FeatureSet, *, mirrored: bool) -> dict[str, Any]:
    name, version, records = context.use_case.name, feature_set.version, context.records
    owner = f"{context.held.app}#{context.held.token}"
    reader = OnlineReader(online_path(context.settings, name))
    with records.leases.claim(
        name, "online", version, owner=owner, attempt=1, ttl=LEASE_SECONDS, wait=LEASE_SECONDS
    ):
        there = reader.describe(version)
        if there is not None and there.partition > context.key:
            return {
                "partition": there.partition,
                "written": False,
                "reason": f"{there.partition} is online and newer",
            }
        held, missing = _recorded(context, feature_set)
        inputs = _inputs(context, feature_set, held)
        frame: pa.Table | None = None
        written = False
        if (
            there is None
            or (there.partition, there.inputs) != (context.key, inputs)
            or not _intact(reader, there)
        ):
            frame = answers_at(
                context.lake, context.use_case, feature_set, context.as_of, keys=list(held)
            )
            there, written = _publish(context, feature_set, reader, frame, inputs), True
        done: dict[str, Any] = {
            "partition": context.key,
            "written": written,
            "rows": reader.count(version),
        }
        if missing:
            done["missing"] = missing
            log.warning(
                "%s %s: online rows lack %d partitions, %s first",
                name,
                context.key,
                len(missing),
                missing[0],
            )
        if mirrored and not feast_mirror.is_mirrored(
            context.settings, context.use_case, feature_set, there
        ):
            if frame is None:
                frame = answers_at(
                    context.lake, context.use_case, feature_set, context.as_of, keys=list(held)
                )
            feast_mirror.mirror(context, feature_set, there, frame)
            done["feast"] = "written"
        reader.close()
        recorded = records.feature_sets.online(name, version)
        if recorded is None or recorded < context.key:
            records.feature_sets.advance(name, version, context.key, recorded)
    return done


def _publish(
    context: StageContext,
    feature_set: FeatureSet,
    reader: OnlineReader,
    frame: pa.Table,
    inputs: str,
) -> OnlineSet:
    """Replace the packed rows by those of the frame, and read them back."""
    wanted = OnlineSet(
        feature_set.version,
        tuple(feature_set.feature_types),
        context.key,
        feature_set.ttl,
        context.started,
        inputs,
        online_store.rows_digest(_packed(frame, feature_set)),
        tuple(
            OnlineView(view.name, view.ttl // timedelta(microseconds=1), tuple(view.columns))
            for view in feature_set.views
        ),
    )
    online_store.publish(reader.path, wanted, _packed(frame, feature_set), check=context.held.check)
    if reader.describe(feature_set.version) != wanted or not _intact(reader, wanted):
        raise EvergreenError(
            f"{context.use_case.name} {context.key}: {reader.path} does not hold what was just "
            "written; check the disk, then rerun"
        )
    log.info(
        "%s: %d online rows of feature set %s from %s",
        context.use_case.name,
        len(frame),
        feature_set.version,
        context.key,
    )
    return wanted


def _intact(reader: OnlineReader, there: OnlineSet) -> bool:
    return online_store.rows_digest(reader.rows(there.feature_set)) == there.digest


def _recorded(context: StageContext, feature_set: FeatureSet) -> tuple[dict[str, str], list[str]]:
    """Return the partitions whose record says that they hold the set, with the digest of its rows,
    and those it misses.

    The rows of others may stand in the tables, of a run that was killed before its record: they are
    not read.
    """
    use_case = context.use_case
    longest = REMEMBERED * min(max(view.ttl for view in feature_set.views), timedelta(days=100_000))
    keys = sorted(
        {
            *partitions.lookback(use_case, context.key, longest),
            *required_at(use_case, feature_set, context.key),
        }
    )
    held: dict[str, str] = {}
    for result in context.records.results.of(
        use_case.name, stage="materialize_features", keys=keys
    ):
        made = feature_sets.made(result)
        if result.state == "done" and all(view.version in made for view in feature_set.views):
            held[result.key] = combine([made[view.version]["digest"] for view in feature_set.views])
    gaps = all(source.gaps == "allow" for source in use_case.sources.values())
    return held, [] if gaps else [
        key for key in required_at(use_case, feature_set, context.key) if key not in held
    ]


def _inputs(context: StageContext, feature_set: FeatureSet, held: Mapping[str, str]) -> str:
    """Return what the online rows depend on: the moment, the feature tables and their records,
    the code that joins them.
    """
    tables = [view.table(context.use_case.name) for view in feature_set.views]
    parts = [f"{table}@{context.lake.version(table)}" for table in tables] + [
        f"{key}:{digest}" for key, digest in held.items()
    ]
    return combine([context.as_of.isoformat(), memo.code_digest("include.features.frames"), *parts])


def _packed(frame: pa.Table, feature_set: FeatureSet) -> Iterator[OnlineRow]:
    """Yield the frame's rows as they are stored, in order of the entity's text."""
    entities = frame.column(feature_set.key).cast(pa.string())
    order = pc.sort_indices(entities)
    micros = frame.column("event_timestamp").cast(pa.int64())
    newest = [newest_column(view) for view in feature_set.views]
    for name in newest:
        frame = frame.set_column(
            frame.column_names.index(name), name, frame.column(name).cast(pa.int64())
        )
    body = (
        frame.select([*feature_set.feature_types, *newest])
        .add_column(0, "__entity", entities)
        .add_column(1, "__micros", micros)
    )
    for batch in body.take(order).to_batches(max_chunksize=ROWS_AT_ONCE):
        columns = [column.to_pylist() for column in batch.columns]
        for entity, event_ts, *values in zip(*columns, strict=True):
            yield online_store.pack(entity, event_ts, values)
