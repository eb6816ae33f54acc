"""Restatement: a recorded partition takes other rows than those on record, for a given reason."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from include.errors import RestatementRefused
from include.ingestion import static_versions
from include.ingestion.columns import FILE, ROW
from include.ingestion.raw_rows import describe_row
from include.ingestion.recorded_intake import RecordedIntake
from include.lake.sql import PARTITION, connect, quote
from include.pipeline.ingest_outputs import IngestedSource
from include.pipeline.stage import StageContext
from include.records.audit import AuditEntry

SHOWN = 3  # differing rows of each side in a message

log = logging.getLogger(__name__)


def audit_changes(
    context: StageContext,
    record: RecordedIntake,
    before: Mapping[str, IngestedSource],
    taken: Mapping[str, IngestedSource],
    fresh: Mapping[str, pa.Table],
) -> list[AuditEntry]:
    """Return the audit entries of what a recorded partition takes that is not on record.

    `fresh` are the rows of the sources that were read, `before` and `taken` what the record says
    of each source and what it is to say.

    Raises:
        RestatementRefused: rows of a source differ, and no reason was given to take them.
    """
    entries = _audit_declared(context, before, taken)
    changed = [
        name for name in fresh if name in before and before[name].digest != taken[name].digest
    ]
    if not changed:
        return entries
    differences = {
        name: _describe_difference(context, name, taken[name], fresh[name]) for name in changed
    }
    reason, accepted = context.options.get("restate"), context.options.get("sources") or changed
    refused = [name for name in changed if not reason or name not in accepted]
    if refused:
        raise _refusal(context, {name: differences[name] for name in refused})
    sources: dict[str, Any] = {}
    for name in changed:
        sources[name] = {
            "was": before[name].digest,
            "is": taken[name].digest,
            "difference": differences[name],
        }
        if version := taken[name].version:
            stale = static_versions.partitions_knowing(name, context, record, version)
            sources[name] |= {"version": version, "stale": stale}
            log.warning(
                "%s %s is restated; stale with it: %s",
                name,
                version,
                ", ".join(stale) or "no other",
            )
    details = {"reason": str(reason), "sources": sources}
    return [*entries, _entry("partition.restated", context, details)]


def _refusal(context: StageContext, differences: Mapping[str, str]) -> RestatementRefused:
    shown = "; ".join(f"{name}: {difference}" for name, difference in differences.items())
    # A static source is restated only where it is named.
    static = "".join(
        f" --source {name}"
        for name in differences
        if context.use_case.sources[name].kind == "static"
    )
    return RestatementRefused(
        f"{context.use_case.name} {context.key} is recorded with other rows ({shown}). The "
        "record stands. To take the new rows, say why: `evergreen run ingest_data --use-case "
        f"{context.use_case.name} --partition {context.key} --restate REASON{static}`"
    )


def _audit_declared(
    context: StageContext, before: Mapping[str, Any], taken: Mapping[str, Any]
) -> list[AuditEntry]:
    """Return the audit entry of a record whose sources are others than before.

    No reason is asked for: it is in the use case's file, which declares them.
    """
    added, removed = sorted(set(taken) - set(before)), sorted(set(before) - set(taken))
    if not before or not added + removed:
        return []
    details = {"added": added, "removed": removed, "reason": "the use case declares other sources"}
    return [_entry("partition.redeclared", context, details)]


def _entry(action: str, context: StageContext, details: dict[str, Any]) -> AuditEntry:
    return AuditEntry(
        action, context.use_case.name, context.key, context.actor, details, context.started
    )


def _describe_difference(
    context: StageContext, name: str, taken: IngestedSource, rows: pa.Table
) -> str:
    """Return in words how rows differ from those on record, with samples of both sides."""
    table = context.table(f"raw/{name}")
    recorded = context.lake.read(table, keys=[taken.stored_under(context.key)])
    recorded = recorded if recorded.num_columns else rows.slice(0, 0)  # the table is lost
    columns = [
        column
        for column in sorted({*rows.column_names, *recorded.column_names})
        if column not in (FILE, ROW, PARTITION)
    ]
    counts, samples = [], []
    with connect() as con:
        con.register("fresh", rows)
        con.register("recorded", recorded)
        picked = {
            side: ", ".join(
                quote(column) if column in body.column_names else f"NULL AS {quote(column)}"
                for column in columns
            )
            for side, body in (("fresh", rows), ("recorded", recorded))
        }
        for sign, side, other in (("+", "fresh", "recorded"), ("-", "recorded", "fresh")):
            differing = con.sql(
                # ALL: a row that stands twice on one side and once on the other differs too.
                f"SELECT {picked[side]} FROM {side} EXCEPT ALL SELECT {picked[other]} FROM {other}"
            ).to_arrow_table()
            counts.append(f"{sign}{len(differing)}")
            samples += [
                f"{sign} {describe_row(row)}" for row in differing.slice(0, SHOWN).to_pylist()
            ]
    return f"{' and '.join(counts)} rows, such as {' | '.join(samples)}"
