"""Facts of a trial on data: what came in, label rates by period, when a training is possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.lake.sql import connect, quote
from include.lake.tables import Lake
from include.pipeline.validation_outputs import ValidationOutputs
from include.point_in_time import partitions
from include.point_in_time.curated import (
    EVENT,
    curated_name,
    curated_schema,
    curated_table,
    record_key,
)
from include.records.records import StageResult

PERIODS = 30  # partitions of decisions to look at, besides what they look back on and wait for
LINES = 12  # of the table of label rates
SHOWN = 3  # refused partitions of a stage, and rules of a source's quarantine
DAY = timedelta(days=1)
ALWAYS = ("duplicates", "conflicts")  # shown also where there are none
_COUNTED = {
    "duplicates": "duplicates",
    "conflicts": "conflicts (one key and time, other values)",
    "repeated": "that repeat another's entity and moment",
    "sharing": "decisions that share entity and moment",
}


def keys_by_stage(use_case: UseCase, newest: str) -> dict[str, list[str]]:
    """Return the partitions that each data stage runs, for `PERIODS` partitions of decisions.

    Each stage begins earlier than the next by what that one looks back on: the spans add up.
    Decisions that can be mature end by label.delay before the newest partition, and so do the
    features; labels are looked for up to the newest.
    """
    views, step = (
        use_case.features.values(),
        {"day": DAY, "week": 7 * DAY, "month": 31 * DAY}[use_case.cadence],
    )
    decided = partitions.lookback(use_case, newest, use_case.label.delay)[0]
    featured = partitions.lookback(
        use_case, decided, max(view.ttl for view in views) + (PERIODS + 1) * step
    )[0]
    validated = partitions.lookback(use_case, featured, max(view.lookback for view in views))[0]
    back = timedelta(0) if use_case.label.sql is None else use_case.label.lookback
    ingested = partitions.lookback(use_case, validated, back)[0]
    return {
        "ingest_data": partitions.between(use_case, ingested, newest),
        "validate_data": partitions.between(use_case, validated, newest),
        "materialize_features": partitions.between(use_case, featured, decided),
    }


def describe_sources(
    use_case: UseCase, results: Sequence[StageResult]
) -> Iterator[tuple[str, str]]:
    """Yield what became of each source's rows: quarantine by rule, duplicates, conflicts."""
    for name, source in use_case.sources.items():
        # Each partition of a static source is all of it.
        counted = results[-1:] if source.kind == "static" else results
        totals, rules = Counter[str](), Counter[str]()
        for row in counted:
            counted_source = ValidationOutputs.of(row).sources.get(name)
            if counted_source is None:
                continue
            counts = msgspec.structs.asdict(counted_source)
            totals.update({what: counts[what] or 0 for what in ("rows", "quarantined", *_COUNTED)})
            rules.update(counted_source.rules or {})
        by_rule = ", ".join(f"{rule} {count}" for rule, count in rules.most_common(SHOWN))
        parts = [
            f"{totals['rows']} rows",
            f"{totals['quarantined']} in quarantine" + (f" ({by_rule})" if by_rule else ""),
        ]
        parts += [
            f"{totals[what]} {text}"
            for what, text in _COUNTED.items()
            if totals[what] or what in ALWAYS
        ]
        yield f"source {name}", ", ".join(parts)


def describe_copies(use_case: UseCase, lake: Lake) -> Iterator[tuple[str, str]]:
    """Yield for each source without an id how many rows repeat another in all but the outcome."""
    for name, source in use_case.sources.items():
        if source.row_digest is None:
            continue
        schema, key = curated_schema(source), quote(source.row_digest)
        with connect() as con:
            lake.scan(con, "curated", curated_table(lake, use_case, name), schema=schema)
            rows, firsts = con.execute(
                f"SELECT count(*), count(*) FILTER (ends_with({key}, '-1')) FROM curated"
            ).fetchone() or (0, 0)
        if rows > firsts:
            together = (
                "; a row and its copies are one entity, in one part of the training"
                if source.row_digest == use_case.entity.key
                else ""
            )
            yield (
                f"copies in {name}",
                f"{rows - firsts} of {rows} rows ({(rows - firsts) / rows:.1%}) repeat another in "
                f"all but the outcome{together}",
            )


def describe_moved(use_case: UseCase, lake: Lake) -> Iterator[tuple[str, str]]:
    """Yield how many rows of the label's source were corrected in their moment or entity.

    What a decision was made of may be corrected; its moment and entity say which decision it is.
    """
    name = use_case.label.source
    if name is None:
        return
    source = use_case.sources[name]
    key, entity = record_key(source), curated_name(source, use_case.entity.key)
    if {EVENT, entity} <= set(key):
        return
    same, schema = ", ".join(map(quote, key)), curated_schema(source)
    with connect() as con:
        lake.scan(con, "curated", curated_table(lake, use_case, name), schema=schema)
        counted = (
            f"SELECT count(DISTINCT ({EVENT}, {quote(entity)})) AS decisions FROM curated "
            f"WHERE {quote(entity)} IS NOT NULL GROUP BY {same}"
        )
        moved, decisions, rows = con.execute(
            "SELECT count(*) FILTER (decisions > 1), sum(decisions) FILTER (decisions > 1), "
            f"count(*) FROM ({counted})"
        ).fetchone() or (0, 0, 0)
    if moved:
        yield (
            "question",
            f"{moved} of {rows} keys of {name} ({', '.join(source.key)}) have rows of several "
            f"moments or entities, and make {decisions} decisions, each with its own outcome. If "
            "these are different decisions, the key lacks a column. If they are corrections, the "
            "decision of before stays beside the corrected one: name an event_time and an "
            "entity.key that no correction changes, or write label.sql that gives a decision once "
            "it is corrected no more (WHERE event_timestamp < getvariable('as_of') - INTERVAL 7 "
            "DAY)",
        )


def label_rates(use_case: UseCase, rows: pa.Table) -> list[tuple[str, int, str]]:
    """Return the label's rate by day, week, month or year, whichever gives few enough lines."""
    for unit in ("day", "week", "month", "quarter", "year"):
        with connect() as con:
            con.register("rows", rows)
            grouped = con.execute(
                f"SELECT strftime(date_trunc('{unit}', event_timestamp), '%Y-%m-%d') AS period, "
                "count(*), avg(label) FROM rows GROUP BY 1 ORDER BY 1"
            ).fetchall()
        if len(grouped) <= LINES:
            break
    return [(period, count, f"{mean:.2%}") for period, count, mean in grouped[-LINES:]]


def describe_first_training(use_case: UseCase, newest: str, rows: pa.Table, rate: float) -> str:
    """Say from which partition on there are enough mature rows, at the rate of the sample."""
    first, last = (
        partitions.key_of(use_case, pc.min_max(rows.column(EVENT)).as_py()[end])
        for end in ("min", "max")
    )
    each = len(rows) / max(1, len(partitions.between(use_case, first, last)))
    rarer = min(rate, 1 - rate) * (use_case.training.split.evaluation or 1.0)
    wanted = -(-use_case.gates.min_rows // rarer)
    if use_case.is_timeless:  # nothing comes later
        enough = "at once" if len(rows) >= wanted else "never"
        return (
            f"{enough}: it needs {wanted:.0f} mature decisions for gates.min_rows of each class, "
            f"and there are {len(rows)}"
        )
    key = (
        first
        if keys_by_stage(use_case, newest)["materialize_features"][0]
        == use_case.history.first.isoformat()
        else str(use_case.history.first)
    )
    # What is rare may need more partitions than the history has: it is counted as if it went on.
    on = use_case.model_copy(update={"history": use_case.history.model_copy(update={"last": None})})
    for _ in range(min(int(wanted // each), 4_000)):
        key = partitions.after(on, key)
    ready = partitions.key_of(on, partitions.period(on, key).end + use_case.label.delay)
    ready = min(ready, newest) if len(rows) >= wanted else ready
    need = (
        f"{wanted:.0f} mature decisions for gates.min_rows of each class, about {each:.0f} "
        f"come a {use_case.cadence}"
    )
    end = use_case.history.last
    late = "" if end is None or ready <= end.isoformat() else f"; after the history's last ({end})"
    return f"about {ready}: it needs {need}{late}"
