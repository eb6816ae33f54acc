"""Online rows: the join's answer at `as_of`, for every feature set that a model may be asked with.

They are over all partitions, and written to the store that the serving node reads; those of
the current set to Feast's own table too, where the use case asks for it. Each is one transaction
with its own partition watermark, so a killed writer leaves the old rows, and an older partition
never replaces a newer one. What is online is compared with what should be, every time; only
differences are written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.errors import ConfigError, EvergreenError
from include.features import feast_mirror, feast_registry, feature_sets, online_rows
from include.features.feature_sets import FeatureSet
from include.features.frames import required_at
from include.features.online_rows import OnlineSet, OnlineView, RowsLost
from include.features.online_stores import OnlineStore, open_store
from include.features.packed_rows import PackedRows
from include.features.population import LONGEST_TTL, answers_at, newest_column
from include.lake.digests import combine
from include.pipeline import memo
from include.pipeline.stage import StageContext
from include.point_in_time import partitions
from include.point_in_time.expiry import REMEMBERED
from include.records.records import Records

log = logging.getLogger(__name__)
LEASE_SECONDS = 60.0
# A set that no model in service, on its way or judged reads is of people's data, kept for nothing.
UNNEEDED_AFTER = timedelta(days=7)


def materialize(context: StageContext, versions: Sequence[str], *, current: str) -> dict[str, Any]:
    """Bring each feature set's online rows to this partition; return what was done, by version.

    Raises:
        ConfigError: the partition's `as_of` is still to come; rows would hide what arrives until
            then.
        EvergreenError: what is online after the write is not what was written.
    """
    if context.as_of > context.started:
        raise ConfigError(
            f"{context.use_case.name} {context.key}: as_of {context.as_of} lies in the future; "
            "materialize when it has passed"
        )
    done: dict[str, Any] = {
        version: _bring_forward(
            context,
            feature_sets.recorded(context.records, context.use_case.name, version),
            is_current=version == current,
        )
        for version in versions
    }
    with closing(open_store(context.settings, context.use_case.name)) as store:
        for gone in store.remove_unneeded(set(versions), before=context.started - UNNEEDED_AFTER):
            log.info("%s: feature set %s is needed no more", context.use_case.name, gone)
    return done


def _bring_forward(
    context: StageContext, feature_set: FeatureSet, *, is_current: bool
) -> dict[str, Any]:
    """Bring the rows of one feature set to this partition, unless newer ones are online."""
    name, version, records = context.use_case.name, feature_set.version, context.records
    owner = f"{context.held.app}#{context.held.token}"
    store = open_store(context.settings, name)
    with records.leases.claim(
        name, "online", version, owner=owner, attempt=1, ttl=LEASE_SECONDS, wait=LEASE_SECONDS
    ):
        present = _described(store, version)
        if present is not None and present.partition > context.key:
            return {
                "partition": present.partition,
                "written": False,
                "reason": f"{present.partition} is online and newer",
            }
        digests, missing = recorded_partitions(records, context.use_case, context.key, feature_set)
        inputs = _inputs(context, feature_set, digests)

        @cache
        def frame() -> pa.Table:  # it takes the longest of all, and is rarely needed
            return answers_at(
                context.lake, context.use_case, feature_set, context.as_of, keys=list(digests)
            )

        written = (
            present is None
            or (present.partition, present.inputs) != (context.key, inputs)
            or not _is_intact(store, present)
        )
        if present is None or written:
            present = _publish(context, feature_set, store, frame(), inputs)
        done: dict[str, Any] = {
            "partition": context.key,
            "written": written,
            "rows": store.count(version),
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
        if is_current and (change := _sync_feast(context, feature_set, present, frame)):
            done["feast"] = change
        store.close()
        watermark = records.feature_sets.online(name, version)
        if watermark is None or watermark < context.key:
            records.feature_sets.advance(name, version, context.key, watermark)
    return done


def _sync_feast(
    context: StageContext,
    feature_set: FeatureSet,
    packed: OnlineSet,
    frame: Callable[[], pa.Table],
) -> str:
    """Bring Feast's registry and online table to what they should be; return what was changed."""
    settings, use_case = context.settings, context.use_case
    feast_registry.apply_registry(settings, context.records, use_case, feature_set)
    if not use_case.online.feast:
        return "removed" if feast_mirror.remove_mirror(settings, use_case, feature_set) else ""
    if feast_mirror.is_mirrored(settings, use_case, feature_set, packed):
        return ""
    feast_mirror.write_mirror(context, feature_set, packed, frame())
    return "written"


def _publish(
    context: StageContext,
    feature_set: FeatureSet,
    store: OnlineStore,
    frame: pa.Table,
    inputs: str,
) -> OnlineSet:
    """Replace the packed rows by those of the frame, and read them back."""
    rows = PackedRows(stored_columns(frame, feature_set))
    wanted = OnlineSet(
        feature_set.version,
        tuple(feature_set.feature_types),
        context.key,
        feature_set.ttl,
        context.started,
        inputs,
        "",
        tuple(
            OnlineView(view.name, view.ttl // timedelta(microseconds=1), tuple(view.columns))
            for view in feature_set.views
        ),
    )
    store.publish(wanted, rows, check=context.held.check, digest=rows.digest)
    wanted = replace(wanted, digest=rows.digest())
    if store.describe(feature_set.version) != wanted or not _is_intact(store, wanted):
        raise EvergreenError(
            f"{context.use_case.name} {context.key}: {store.where} does not hold what was just "
            "written; check the disk or who else writes there, then rerun"
        )
    log.info(
        "%s: %d online rows of feature set %s from %s",
        context.use_case.name,
        len(frame),
        feature_set.version,
        context.key,
    )
    return wanted


def _described(store: OnlineStore, version: str) -> OnlineSet | None:
    """Return what is online of a feature set; None too where it cannot be made out."""
    try:
        return store.describe(version)
    except RowsLost:
        return None


def _is_intact(store: OnlineStore, described: OnlineSet) -> bool:
    """Tell whether the rows that are online are those that the set describes."""
    try:
        return online_rows.rows_digest(store.rows(described.feature_set)) == described.digest
    except RowsLost:
        return False


def recorded_partitions(
    records: Records, use_case: UseCase, key: str, feature_set: FeatureSet
) -> tuple[dict[str, str], list[str]]:
    """Return the partitions on record that hold the set, with a digest, and those that lack it.

    Rows of other partitions may stand in the tables, of a run that was killed before its record:
    they are not read. A partition counts as lacking where features that are alive can stand in it.
    """
    longest = REMEMBERED * min(max(view.ttl for view in feature_set.views), LONGEST_TTL)
    required = required_at(use_case, feature_set, key)
    keys = sorted({*partitions.lookback(use_case, key, longest), *required})
    digests: dict[str, str] = {}
    for result in records.results.of(use_case.name, stage="materialize_features", keys=keys):
        tables = feature_sets.tables_by_view(result)
        if result.state == "done" and all(view.version in tables for view in feature_set.views):
            digests[result.key] = combine(
                [tables[view.version].digest for view in feature_set.views]
            )
    if all(source.gaps == "allow" for source in use_case.sources.values()):
        return digests, []
    return digests, [key for key in required if key not in digests]


def _inputs(context: StageContext, feature_set: FeatureSet, digests: Mapping[str, str]) -> str:
    """Return a digest of what online rows depend on: moment, tables, their records, and the code.

    `digests` are those of the partitions' records, by key.
    """
    tables = [view.table(context.use_case.name) for view in feature_set.views]
    parts = [f"{table}@{context.lake.version(table)}" for table in tables]
    parts += [f"{key}:{digest}" for key, digest in digests.items()]
    code = memo.code_digest("include.features.population")
    return combine([context.as_of.isoformat(), code, *parts])


def stored_columns(frame: pa.Table, feature_set: FeatureSet) -> pa.Table:
    """Return the frame's columns as they are packed, in order of the entity's text.

    That is the order in which SQLite gives them back, so both have one digest. Behind the features
    stands each view's newest event time, in microseconds.
    """
    entities = frame.column(feature_set.key).cast(pa.string())
    newest = [newest_column(view) for view in feature_set.views]
    columns = {name: frame.column(name) for name in feature_set.feature_types}
    columns |= {name: frame.column(name).cast(pa.int64()) for name in newest}
    micros = frame.column("event_timestamp").cast(pa.int64())
    body = pa.table({"__entity": entities, "__micros": micros, **columns})
    return body.take(pc.sort_indices(entities))
