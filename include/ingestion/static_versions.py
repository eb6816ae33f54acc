"""Static sources: whole snapshots, kept by their digest, each known from one partition on, and
observed when it is observed.

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
from typing import Any

import numpy as np
import pyarrow as pa

from include.config.durations import format_duration, midnight
from include.config.use_case_sources import Source
from include.errors import SourceError
from include.ingestion.arrival import is_newest, results
from include.ingestion.columns import ARRIVED, FILE, ROW
from include.ingestion.sources import Delivery
from include.lake.digests import digest
from include.lake.sql import TIMESTAMP
from include.pipeline.stage import StageContext
from include.point_in_time import partitions

log = logging.getLogger(__name__)
Facts = dict[str, Any]


def take(
    name: str, context: StageContext, read: Callable[[], Delivery]
) -> tuple[Facts, pa.Table | None]:
    """Return what a partition knows of a static source, and rows where they are a version that is
    not stored yet.

    Facts whose digest differs from the recorded one are a restatement, for which the caller wants a
    reason. The rows are those of the version `pending` where the facts name one.

    Raises: SourceError: a version is lost and the source has another content now, or there is
        nothing to restate.
    """
    known = _known(name, context)
    versions = _versions(known)
    named = name in context.options.get("sources", ())
    if context.key in known:
        return _again(name, context, read, known[context.key], versions, named=named)
    if named:
        raise SourceError(
            f"{context.use_case.name} {context.key} is not ingested, and so knows no version of "
            f"{name} to restate; name a partition that does, or leave --source out"
        )
    version = max((version for version in versions if version <= context.key), default="")
    if not version:
        return _snapshot(name, context, _first(context), read())
    there = _kept(context, name, version)
    if there and not is_newest(context):
        return versions[version], None
    delivery = read()
    facts, rows = _snapshot(name, context, version, delivery)
    if facts["digest"] == versions[version]["digest"]:
        return versions[version], None if there else rows
    if not is_newest(context):
        keys = [key for key in known if known[key]["version"] == version]
        raise SourceError(
            f"{context.use_case.name}: version {version} of {name} is lost from the lake, and the "
            "source has another content now; put its content back, or accept this one: "
            f"`evergreen run ingest_data --use-case {context.use_case.name} --partition "
            f"{min(keys, default=context.key)} --restate REASON --source {name}`"
        )
    source = context.use_case.sources[name]
    if context.started - context.as_of <= source.observed_within:
        return _snapshot(name, context, context.key, delivery)
    following = partitions.following(context.use_case, context.period).key
    told = (
        f"{context.use_case.name} {context.key}: {name} was read more than "
        f"{format_duration(source.observed_within)} after as_of"
    )
    if not partitions.within(context.use_case.history, following):
        log.warning(
            "%s: its new content is known to no partition; restate the version, if it is "
            "of the past",
            told,
        )
        return versions[version], None
    log.warning("%s: its new content is known from %s on", told, following)
    facts, rows = _snapshot(name, context, following, delivery)
    return versions[version] | {"pending": facts}, rows


def _again(
    name: str,
    context: StageContext,
    read: Callable[[], Delivery],
    mine: Facts,
    versions: Mapping[str, Facts],
    *,
    named: bool,
) -> tuple[Facts, pa.Table | None]:
    """Return what a recorded partition knows: its version, as that was restated, or is now to
    be.
    """
    version = mine["version"]
    pending = {"pending": mine["pending"]} if "pending" in mine else {}
    if _kept(context, name, version) and not named:
        return versions[version] | pending, None
    facts, rows = _snapshot(name, context, version, read())
    if facts["digest"] != versions[version]["digest"]:
        return facts | pending | {"restated": versions[version].get("restated", 0) + 1}, rows
    return versions[version] | pending, None if _kept(context, name, version) else rows


def current(known: Mapping[str, Facts]) -> dict[str, Facts]:
    """Return what each version is since its last restatement; `known` is what each partition
    recorded.
    """
    found: dict[str, Facts] = {}
    for key in sorted(known):
        fact = known[key]
        there = found.setdefault(fact["version"], fact)
        if fact.get("restated", 0) > there.get("restated", 0):
            found[fact["version"]] = fact
    return found


def told(name: str, fact: Facts) -> str:
    """Return in words since when versions were observed, and which one is still to come; empty
    where there is nothing to say.
    """
    pending = fact.get("pending")
    if pending is None:
        return ""
    return (
        f"{name}: read {pending['observed'][:16]}, too long after as_of; known from "
        f"{pending['version']} on"
    )


def recorded(name: str, context: StageContext) -> dict[str, Facts]:
    """Return what each version of a static source is now, by the records of all partitions."""
    return current(_known(name, context))


def knowing(name: str, context: StageContext, version: str) -> list[str]:
    """Return the other partitions that know a version."""
    return sorted(
        key
        for key, fact in _known(name, context).items()
        if fact["version"] == version and key != context.key
    )


def _versions(known: Mapping[str, Facts]) -> dict[str, Facts]:
    """Return what each version is, those among them that no partition knows yet."""
    pending = {
        fact["pending"]["version"]: fact["pending"]
        for _, fact in sorted(known.items())
        if "pending" in fact
    }
    return pending | {version: _plain(fact) for version, fact in current(known).items()}


def _plain(fact: Facts) -> Facts:
    return {name: value for name, value in fact.items() if name != "pending"}


def _known(name: str, context: StageContext) -> dict[str, Facts]:
    done = [result for result in results(context, "ingest_data") if result.state == "done"]
    found = {
        result.key: result.outputs["sources"][name]
        for result in done
        if name in result.outputs["sources"]
    }
    return {key: fact for key, fact in found.items() if "version" in fact}


def _snapshot(
    name: str, context: StageContext, version: str, delivery: Delivery
) -> tuple[Facts, pa.Table]:
    """Return the facts and rows of a delivery as a version."""
    source, rows = context.use_case.sources[name], delivery.rows
    assert source.valid_from is not None
    content = content_digest(rows, source)
    first = version == _first(context)
    since = (
        midnight(source.valid_from)
        if first
        else partitions.period(context.use_case, version).arrival_start
    )
    at = np.full(len(rows), np.datetime64(since.replace(tzinfo=None), "us"))
    facts = {
        "rows": len(rows),
        "digest": content,
        "source_digest": "|".join(
            f"{file}:{sha}" for file, sha in sorted(delivery.digests.items())
        ),
        "files": sorted(delivery.digests),
        "columns": [
            {"columns": list(header), "files": [file], "count": 1}
            for file, header in delivery.headers.items()
        ],
        "late": 0,
        "arrival": "valid_from",
        "version": version,
        "observed": context.started.isoformat(),
    }
    return facts, rows.append_column(ARRIVED, pa.array(at).cast(TIMESTAMP))


def content_digest(rows: pa.Table, source: Source) -> str:
    """Return the digest of a version: the source's columns, not the file, the row number, or the
    moment it is known from.
    """
    body = rows.drop_columns([name for name in (FILE, ROW, ARRIVED) if name in rows.column_names])
    return digest(body, sort_by=_sort_by(body, source.key))


def _first(context: StageContext) -> str:
    return partitions.period(context.use_case, context.use_case.history.first.isoformat()).key


def _kept(context: StageContext, name: str, version: str) -> bool:
    return version in context.lake.keys(context.table(f"raw/{name}"))


def _sort_by(rows: pa.Table, key: list[str]) -> list[str]:
    return [name for name in key if name in rows.column_names]
