"""Stage `validate_data`: judge a partition's raw rows, and write curated rows and labels.

The verdict is pass, quarantine (some rows are set aside) or block.

Inputs: `raw/<source>` of the partition, and for labels by SQL that of the label's lookback.
Outputs: `curated/<source>`, `quarantine/<source>`, `labels`, and the result under HOME/validation.
A partition that blocks leaves no curated row and no label. Earlier partitions of a label's lookback
that are not validated yet are curated with it, in memory: the stage never waits on itself. So are
those that were judged by other rules than today's; `outdated` names those whose record the runner
renews first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache

from include.config.use_case import UseCase
from include.errors import ConfigError, MissingPartition
from include.features import feature_sets
from include.lake.digests import combine
from include.pipeline import memo
from include.pipeline.ingest_outputs import IngestOutputs
from include.pipeline.stage import GAP, Input, Outcome, Stage, StageContext
from include.pipeline.validation_outputs import ValidationOutputs
from include.point_in_time import partitions
from include.validation import expectations
from include.validation.lookback import (
    JUDGED,
    ingested_sources,
    label_events,
    label_gaps,
    label_lookback,
    recorded_results,
)
from include.validation.range_validation import RangeValidation
from include.validation.read_back import read_back

NAME = "validate_data"
FIELDS = ("cadence", "cut_off", "history", "entity", "sources", "label")
LIBRARIES = ("duckdb", "great-expectations", "pyarrow", "sqlglot")
# What judges raw rows and makes labels of them, each with all that it imports.
RULES = ("include.validation.partition_check", "include.validation.labels")
# Most rows that are judged at once, and bytes of a row meanwhile: as texts, judged and curated.
CHUNK_ROWS, ROW_BYTES = 2_000_000, 2_000


def inputs(context: StageContext) -> list[Input]:
    """Return the recorded digests of the raw rows of the partition and of its labels' lookback.

    Raises:
        MissingPartition: the partition, or one of the label's lookback, is not ingested.
    """
    context.need("ingest_data", [context.key])
    ingested = ingested_sources([context])
    new = sorted(set(context.use_case.sources) - set(ingested[context.key]))
    if new:
        raise MissingPartition(
            f"{context.use_case.name} {context.key} was ingested before the sources {new} were "
            "declared; ingest it again: `evergreen run ingest_data --use-case "
            f"{context.use_case.name} --partition {context.key}`",
            keys=[context.key],
        )
    events = label_events(context)
    raw = [
        Input(context.table(f"raw/{name}"), key, source.digest)
        for key in label_lookback(context, ingested)
        for name, source in ingested[key].items()
        if key == context.key or name in events
    ]
    gaps = [
        Input(context.table(f"raw/{name}"), key, GAP)
        for key in label_gaps(context, ingested)
        for name in events
    ]
    return raw + gaps + _suite(context.use_case)


def compute(context: StageContext) -> Outcome:
    """Validate and curate one partition."""
    ((_, outcome),) = compute_range([context])
    return outcome


def compute_range(contexts: Sequence[StageContext]) -> Iterator[tuple[StageContext, Outcome]]:
    """Validate and curate many partitions in one scan of each source.

    Each is judged alone, and with earlier partitions only.
    """
    rules = rules_digest(contexts[0].use_case)
    for chunk in _chunks(contexts):
        yield from RangeValidation(
            chunk,
            stage=NAME,
            rules=rules,
            code=_code(),
            newest=chunk[-1] is contexts[-1],
        ).outcomes()


def outdated(contexts: Sequence[StageContext]) -> list[str]:
    """Return the earlier partitions that were judged by other rules than today's.

    Of those that labels and views look back on. One whose raw rows have changed as well is stale,
    and for a person to run again.
    """
    first, use_case = contexts[0], contexts[0].use_case
    spans = [view.lookback for view in use_case.features.values()]
    with suppress(ConfigError):  # the stage that asks a query says that it is not there
        asked = [context.key for context in contexts]
        needed = feature_sets.sets_to_compute(first.records, use_case, asked)
        spans += [view.lookback for sets in needed.values() for each in sets for view in each.views]
    span = max(use_case.label.lookback if label_events(first) else timedelta(0), *spans)
    keys = {
        key for context in contexts for key in partitions.lookback(use_case, context.key, span)
    } - {context.key for context in contexts}
    rules = rules_digest(use_case)
    old = [
        result
        for result in recorded_results(first, NAME, keys)
        if result.state in JUDGED and ValidationOutputs.of(result).rules != rules
    ]
    if not old:
        return []
    read = {key for result in old for _, key, _ in result.reads}
    raw = {
        (first.table(f"raw/{name}"), result.key): source.digest
        for result in recorded_results(first, "ingest_data", read)
        if result.state == "done"
        for name, source in IngestOutputs.of(result).sources.items()
    }
    return sorted(
        result.key
        for result in old
        if all(
            raw.get((table, key), GAP) == digest
            for table, key, digest in result.reads
            if table.startswith(first.table("raw/"))
        )
    )


def rules_digest(use_case: UseCase) -> str:
    """Return the digest of all that judges raw rows and makes labels of them.

    That is the contract, the suite, the label's SQL, the code and the versions of the libraries.
    """
    return memo.memo_key(
        stage=NAME,
        code=_code(),
        use_case=use_case,
        fields=FIELDS,
        libraries=LIBRARIES,
        inputs=[(read.table, read.key, read.digest) for read in _suite(use_case)],
        options={},
    )


def _chunks(contexts: Sequence[StageContext]) -> Iterator[list[StageContext]]:
    """Cut a range into parts that fit into memory."""
    ingested, chunk, rows = ingested_sources(contexts), list[StageContext](), 0
    most = min(CHUNK_ROWS, contexts[0].settings.memory_bytes // ROW_BYTES)
    for context in contexts:
        rows += sum(source.rows for source in ingested[context.key].values() if not source.version)
        chunk.append(context)
        if rows > most:
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk


def _suite(use_case: UseCase) -> list[Input]:
    """Return the suite of the use case's own expectations, where it has one."""
    suite = expectations.own_suite(use_case)
    return [Input("expectations", use_case.name, suite[0])] if suite else []


@lru_cache(maxsize=1)
def _code() -> str:
    """Return the digest of the code that judges rows, which a process does not change."""
    return combine([memo.code_digest(module) for module in RULES])


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    compute_range=compute_range,
    outdated=outdated,
    read_back=read_back,
)
