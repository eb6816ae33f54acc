"""Redriving of quarantined rows: chosen and corrected, they are given to a coming partition.

Rows that would fail again are refused. What is recorded is which partition is to take them in.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import ConfigError, Conflict
from include.ingestion.columns import FILE, ROW
from include.ingestion.redriven import Redriven, as_raw_rows, record_redriven
from include.ingestion.row_digests import digest_of_row
from include.lake.digests import digest
from include.lake.sql import PARTITION, connect
from include.point_in_time import partitions
from include.point_in_time.partitions import Period
from include.records.audit import AuditEntry
from include.records.records import Records
from include.validation import quarantine
from include.validation.contract import judged_query, periods_table
from include.validation.judgement import RULE
from include.validation.lookback import JUDGED
from include.validation.quarantine import QuarantinedRow

LISTED = 1000
SHOWN = 5


@dataclass(frozen=True)
class Plan:
    """The rows to redrive, and the partition that takes them (`into`).

    `corrected` of them have other values than in quarantine; `before` of the chosen rows were
    redriven before, and are left out.
    """

    into: str
    rows: list[Redriven]
    corrected: int
    before: int

    def counts(self) -> list[tuple[str, str, int]]:
        """Return the number of rows by partition and source."""
        places = [(row.partition, row.source) for row in self.rows]
        return [(*place, places.count(place)) for place in sorted(set(places))]


def plan_redrive(
    settings: Settings,
    records: Records,
    use_case: UseCase,
    *,
    partition: str | None = None,
    source: str | None = None,
    rule: str | None = None,
    changes: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Plan:
    """Return what a redrive would do.

    `changes` are new values by column, `file` is a corrected CSV, which also chooses the rows.

    Raises:
        ConfigError: nothing is chosen, a column is unknown, a row is redriven already or would fail
            again, or the history has no later partition.
    """
    chosen = quarantine.find_rows(
        settings, records, use_case, partition=partition, source=source, rule=rule
    )
    if file is not None:
        by_place = {row.place: row for row in chosen}
        given = quarantine.read_corrections(file, by_place, use_case)
        chosen = [row for row in chosen if row.place in given]
        redriven = [row for row in chosen if row.into is not None]
        if redriven:
            raise ConfigError(
                f"{file}: {_describe_row(redriven[0])} is redriven already, into "
                f"{redriven[0].into}; leave it out"
            )
    else:
        given = {row.place: dict(row.values) for row in chosen}
    waiting = [row for row in chosen if row.into is None]
    if not waiting:
        raise _nothing_chosen(settings, use_case, partition, len(chosen))
    into = taking_partition(records, use_case)
    redriving, corrected = [], 0
    for row in waiting:
        values = _content(use_case, row, given[row.place], changes or {})
        corrected += values != _content(use_case, row, row.values, {})
        redriving.append(Redriven(row.source, row.partition, row.file, row.row, into, values))
    period = partitions.period(use_case, into)
    for name in sorted({row.source for row in redriving}):
        _check(use_case, name, [row for row in redriving if row.source == name], period)
    return Plan(into, redriving, corrected, len(chosen) - len(waiting))


def taking_partition(records: Records, use_case: UseCase) -> str:
    """Return the first partition that is newer than all that are ingested.

    Raises:
        ConfigError: none is ingested, or the history ends with the newest.
    """
    ingested = [
        result.key
        for result in records.results.of(use_case.name, stage="ingest_data")
        if result.state in JUDGED
    ]
    newest = max(ingested, default="")
    if not newest:
        raise ConfigError(f"{use_case.name} has no ingested partition, and so no row to redrive")
    after = partitions.key_of(use_case, partitions.period(use_case, newest).as_of)
    if not partitions.within(use_case.history, after):
        raise ConfigError(
            f"{use_case.name} ends with {use_case.history.last}: no later partition can take the "
            "rows. Correct the source, and ingest their own partition again "
            "with `--restate REASON`"
        )
    return after


def record_redrive(
    settings: Settings,
    records: Records,
    use_case: UseCase,
    plan: Plan,
    *,
    reason: str,
    actor: str,
    at: datetime,
) -> None:
    """Record the rows of a plan, with who asked for it and why; the next ingestion takes them in.

    Raises:
        ConfigError: there is no reason.
        Busy: the partition is being ingested.
        Conflict: it was ingested meanwhile, or a row was redriven meanwhile; nothing was written.
    """
    if not reason.strip():
        raise ConfigError("a redrive needs a reason; it goes on the audit record")
    owner = f"redrive@{socket.gethostname()}:{os.getpid()}"
    ttl = settings.lease_seconds
    with records.leases.claim(
        use_case.name, "ingest_data", plan.into, owner=owner, attempt=1, ttl=ttl
    ) as lease:
        now = taking_partition(records, use_case)
        if now != plan.into:
            raise Conflict(
                f"{use_case.name}: {plan.into} was ingested meanwhile; redrive again, into {now}"
            )
        details = {
            "reason": reason.strip(),
            "rows": len(plan.rows),
            "corrected": plan.corrected,
            "digest": _digest(plan.rows),
            "which": [[row.source, row.partition, row.file, row.row] for row in plan.rows[:LISTED]],
        }
        # The token makes the entry's name: asked again after a lost answer, it is written once.
        once = f"quarantine.redriven/{lease.app}#{lease.token}"
        entry = AuditEntry(
            "quarantine.redriven", use_case.name, plan.into, actor, details, at, once
        )
        record_redriven(records, lease, plan.rows, entry)


def _content(
    use_case: UseCase, row: QuarantinedRow, values: Mapping[str, str], changes: Mapping[str, str]
) -> dict[str, str]:
    """Return the declared columns of a row with the changes; an empty one takes the value away.

    Raises:
        ConfigError: the source is static, or a changed column is not declared.
    """
    if use_case.sources[row.source].kind == "static":
        raise ConfigError(
            f"source {row.source} is static: it is replaced as a whole. Correct it and let the "
            "next partition read it, or correct a version of the past with "
            "`--restate REASON --source " + row.source + "`"
        )
    columns = quarantine.correctable_columns(use_case, row.source)
    unknown = [name for name in changes if name not in columns]
    if unknown:
        raise ConfigError(
            f"source {row.source} has no column {unknown[0]!r} to set; its columns are "
            f"{', '.join(columns)}"
        )
    whole = {**{name: value for name, value in values.items() if name in columns}, **changes}
    content = {name: value for name, value in whole.items() if value or name not in changes}
    if (made := use_case.sources[row.source].row_digest) is not None:
        # The row that was delivered, whatever is mended in it; a broken line had no cells.
        content[made] = row.values.get(made) or digest_of_row(content, use_case, row.source)
    return content


def _check(use_case: UseCase, name: str, rows: Sequence[Redriven], period: Period) -> None:
    """Refuse rows that the partition's validation would set aside again."""
    source = use_case.sources[name]
    if not partitions.within(source.history, period.key):
        raise ConfigError(
            f"source {name} has a history of its own that ends before {period.key}; correct the "
            "source, and ingest the rows' own partition again with `--restate REASON`"
        )
    offered = as_raw_rows(rows, period)
    offered = offered.append_column(PARTITION, pa.array([period.key] * len(rows), pa.string()))
    with connect() as con:
        con.register("offered", offered)
        con.register("__periods", periods_table([period]))
        query = judged_query(
            source, offered.column_names, "offered", [], entity=use_case.entity.key
        )
        bad = con.sql(
            f"SELECT {FILE}, {ROW}, {RULE} FROM ({query}) WHERE {RULE} IS NOT NULL ORDER BY ALL"
        ).fetchall()
    if bad:
        listed = "; ".join(f"{file}, row {number}: {rule}" for file, number, rule in bad[:SHOWN])
        raise ConfigError(
            f"{len(bad)} of {len(rows)} rows of {name} would fail again ({listed}). Correct them "
            f"with --set COLUMN=VALUE or in a CSV (`evergreen quarantine list {use_case.name} "
            "--csv FILE`, then --from FILE), or choose others with --rule"
        )


def _nothing_chosen(
    settings: Settings, use_case: UseCase, partition: str | None, redriven: int
) -> ConfigError:
    """Return the error that says why no row is left to redrive."""
    if redriven:
        return ConfigError(
            f"all {redriven} chosen rows are redriven already; `evergreen quarantine list "
            f"{use_case.name}` says where"
        )
    rules = sorted(quarantine.count_rules(settings, use_case, partition=partition))
    failed = ", ".join(map(repr, rules[: 2 * SHOWN]))
    hint = f"the rules that failed there are {failed}" if rules else "none is in quarantine there"
    return ConfigError(f"{use_case.name}: no quarantined row is chosen; {hint}")


def _digest(rows: Sequence[Redriven]) -> str:
    """Return the digest of rows to redrive, for the audit log."""
    return digest(
        pa.table(
            {
                "source": [row.source for row in rows],
                "key": [row.partition for row in rows],
                "file": [row.file for row in rows],
                "row": [row.row for row in rows],
                "content": [repr(sorted(row.content.items())) for row in rows],
            }
        ),
        sort_by=["source", "key", "file", "row"],
    )


def _describe_row(row: QuarantinedRow) -> str:
    return f"row {row.row} of {row.file} ({row.source} {row.partition})"
