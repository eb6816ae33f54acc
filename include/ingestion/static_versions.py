"""Static sources: whole snapshots, each a version that is known from one partition on.

The first version is known from `valid_from` and is kept in the first partition of the history. A
later one is taken only by the run of the newest complete partition, while that is not recorded: it
is known from that partition where it was read at most `observed_within` after its `as_of`,
otherwise from the next one (`pending` until that is ingested). Every other run reads no file and
uses the newest version that is known to its key: what a file holds today says nothing of the past.

A version that was wrong is restated through any partition that knows it, by the options `restate`
(a reason) and `sources` (naming the static source: otherwise its file of today, a later version,
would overwrite the past whenever an event source is restated). The version keeps its key and the
moment from which it is known; `restated` counts how often that happened, and the other partitions
that know the version take it over when they are ingested again. Until then they are stale.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import UNSET

from include.config.durations import format_duration, midnight
from include.errors import SourceError
from include.ingestion.columns import ARRIVED
from include.ingestion.raw_rows import version_digest
from include.ingestion.recorded_intake import RecordedIntake, is_newest
from include.ingestion.sources import Delivery
from include.lake.sql import TIMESTAMP
from include.pipeline.ingest_outputs import FileHeader, IngestedSource, StaticVersion
from include.pipeline.stage import StageContext
from include.point_in_time import partitions

log = logging.getLogger(__name__)


def take_version(
    name: str, context: StageContext, record: RecordedIntake, read: Callable[[], Delivery]
) -> tuple[StaticVersion, pa.Table | None]:
    """Return the version that a partition knows, and rows where they are not stored yet.

    A version whose digest differs from the recorded one is a restatement, for which the caller
    wants a reason. The rows are those of the version `pending` where there is one. `read` is called
    only where the source has to be read.

    Raises:
        SourceError: a version is lost and the source has another content now, or there is nothing
            to restate.
    """
    known = record.versions(name, context)
    versions = _all_versions(known)
    restate = name in context.options.get("sources", ())
    if context.key in known:
        return _take_again(name, context, read, known[context.key], versions, restate=restate)
    if restate:
        raise SourceError(
            f"{context.use_case.name} {context.key} is not ingested, and so knows no version of "
            f"{name} to restate; name a partition that does, or leave --source out"
        )
    version = max((version for version in versions if version <= context.key), default="")
    if not version:
        return _snapshot(name, context, _first_key(context), read())
    stored = _is_stored(context, name, version)
    if stored and not is_newest(context):
        return versions[version], None
    delivery = read()
    snapshot, rows = _snapshot(name, context, version, delivery)
    if snapshot.digest == versions[version].digest:
        return versions[version], None if stored else rows
    if not is_newest(context):
        knowing = [key for key in known if known[key].version == version]
        raise SourceError(
            f"{context.use_case.name}: version {version} of {name} is lost from the lake, and the "
            "source has another content now; put its content back, or accept this one: "
            f"`evergreen run ingest_data --use-case {context.use_case.name} --partition "
            f"{min(knowing, default=context.key)} --restate REASON --source {name}`"
        )
    if context.started - context.as_of <= context.use_case.sources[name].observed_within:
        return _snapshot(name, context, context.key, delivery)
    return _take_too_late(name, context, versions[version], delivery)


def _take_too_late(
    name: str, context: StageContext, version: StaticVersion, delivery: Delivery
) -> tuple[StaticVersion, pa.Table | None]:
    """Return the version that a partition knows, with a content that only the next one knows.

    The content was read so long after the partition's `as_of` that nobody can say whether it was
    there at that moment.
    """
    following = partitions.following(context.use_case, context.period).key
    message = (
        f"{context.use_case.name} {context.key}: {name} was read more than "
        f"{format_duration(context.use_case.sources[name].observed_within)} after as_of"
    )
    if not partitions.within(context.use_case.history, following):
        log.warning(
            "%s: its new content is known to no partition; restate the version, if it is "
            "of the past",
            message,
        )
        return version, None
    log.warning("%s: its new content is known from %s on", message, following)
    pending, rows = _snapshot(name, context, following, delivery)
    return msgspec.structs.replace(version, pending=pending), rows


def _take_again(
    name: str,
    context: StageContext,
    read: Callable[[], Delivery],
    recorded: StaticVersion,
    versions: Mapping[str, StaticVersion],
    *,
    restate: bool,
) -> tuple[StaticVersion, pa.Table | None]:
    """Return the version that a recorded partition knows, as it was restated or is now to be."""
    current = versions[recorded.version]
    stored = _is_stored(context, name, recorded.version)
    if stored and not restate:
        return msgspec.structs.replace(current, pending=recorded.pending), None
    snapshot, rows = _snapshot(name, context, recorded.version, read())
    if snapshot.digest != current.digest:
        restated = msgspec.structs.replace(
            snapshot, pending=recorded.pending, restated=(current.restated or 0) + 1
        )
        return restated, rows
    current = msgspec.structs.replace(current, pending=recorded.pending)
    return current, None if stored else rows


def current_versions(known: Mapping[str, StaticVersion]) -> dict[str, StaticVersion]:
    """Return what each version is since its last restatement.

    `known` is what each partition recorded, by key.
    """
    current: dict[str, StaticVersion] = {}
    for _, recorded in sorted(known.items()):
        newest = current.setdefault(recorded.version, recorded)
        if (recorded.restated or 0) > (newest.restated or 0):
            current[recorded.version] = recorded
    return current


def describe_pending(name: str, recorded: IngestedSource) -> str:
    """Return in words which version of a static source is still to come; empty where none is."""
    if not recorded.pending:
        return ""
    return (
        f"{name}: read {recorded.pending.observed[:16]}, too long after as_of; known from "
        f"{recorded.pending.version} on"
    )


def partitions_knowing(
    name: str, context: StageContext, record: RecordedIntake, version: str
) -> list[str]:
    """Return the other partitions that know a version, sorted."""
    return sorted(
        key
        for key, recorded in record.versions(name, context).items()
        if recorded.version == version and key != context.key
    )


def _all_versions(known: Mapping[str, StaticVersion]) -> dict[str, StaticVersion]:
    """Return what each version is, also of those that no partition knows yet."""
    pending = {
        recorded.pending.version: recorded.pending
        for _, recorded in sorted(known.items())
        if recorded.pending
    }
    current = {
        version: msgspec.structs.replace(recorded, pending=UNSET)
        for version, recorded in current_versions(known).items()
    }
    return pending | current


def _snapshot(
    name: str, context: StageContext, version: str, delivery: Delivery
) -> tuple[StaticVersion, pa.Table]:
    """Return a delivery as a version, and its rows, which arrived when the version is known."""
    source, rows = context.use_case.sources[name], delivery.rows
    assert source.valid_from is not None
    known_from = (
        midnight(source.valid_from)
        if version == _first_key(context)
        else partitions.period(context.use_case, version).arrival_start
    )
    arrived = np.full(len(rows), np.datetime64(known_from.replace(tzinfo=None), "us"))
    snapshot = StaticVersion(
        rows=len(rows),
        digest=version_digest(rows, source),
        source_digest="|".join(f"{file}:{sha}" for file, sha in sorted(delivery.digests.items())),
        files=sorted(delivery.digests),
        columns=[
            FileHeader(columns=list(header), files=[file], count=1)
            for file, header in delivery.headers.items()
        ],
        late=0,
        arrival="valid_from",
        version=version,
        observed=context.started.isoformat(),
    )
    return snapshot, rows.append_column(ARRIVED, pa.array(arrived).cast(TIMESTAMP))


def _first_key(context: StageContext) -> str:
    return partitions.period(context.use_case, context.use_case.history.first.isoformat()).key


def _is_stored(context: StageContext, name: str, version: str) -> bool:
    return version in context.lake.keys(context.table(f"raw/{name}"))
