"""The earlier partitions that the labels of a partition look back on, as they are recorded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from include.pipeline.ingest_outputs import IngestedSource, IngestOutputs
from include.pipeline.stage import StageContext
from include.point_in_time import partitions
from include.records.records import StageResult
from include.validation import labels

JUDGED = ("done", "blocked")  # a partition that came empty is blocked, and recorded all the same


def recorded_results(
    context: StageContext, stage: str, keys: Collection[str] | None = None
) -> list[StageResult]:
    """Return what is recorded of a stage for some partitions (None: for all)."""
    if context.preloaded is not None:
        return [
            result
            for (name, key), result in context.preloaded.items()
            if name == stage and (keys is None or key in keys)
        ]
    return context.records.results.of(
        context.use_case.name, stage=stage, keys=None if keys is None else sorted(keys)
    )


def ingested_sources(contexts: Sequence[StageContext]) -> dict[str, dict[str, IngestedSource]]:
    """Return what is recorded of the sources of all partitions that some partitions look at."""
    keys = {key for context in contexts for key in _asked(context)}
    return {
        result.key: IngestOutputs.of(result).sources
        for result in recorded_results(contexts[0], "ingest_data", keys)
        if result.state in JUDGED
    }


def label_events(context: StageContext) -> list[str]:
    """Return the event sources that the label's SQL reads; none without SQL."""
    use_case = context.use_case
    if use_case.label.sql is None:
        return []
    # Once for all partitions of a range: it reads the query's file.
    return context.once(
        "events of the label",
        lambda: [
            name for name in labels.sources(use_case) if use_case.sources[name].kind == "events"
        ],
    )


def label_lookback(
    context: StageContext, ingested: Mapping[str, Mapping[str, IngestedSource]]
) -> list[str]:
    """Return the partition and the earlier ones that its labels need, oldest first.

    Raises:
        MissingPartition: one is not ingested, and a source that is needed allows no gaps.
    """
    events = label_events(context)
    if not events:
        return [context.key]
    keys = partitions.lookback(context.use_case, context.key, context.use_case.label.lookback)
    sources = [context.use_case.sources[name] for name in events]
    missing = [
        key
        for key in keys
        if key not in ingested
        and any(
            partitions.within(source.history, key) and source.gaps == "fail" for source in sources
        )
    ]
    if missing:
        context.need("ingest_data", missing)
    return [key for key in keys if key in ingested]


def label_gaps(
    context: StageContext, ingested: Mapping[str, Mapping[str, IngestedSource]]
) -> list[str]:
    """Return the earlier partitions that labels are made without, since sources may lack them."""
    sources = [context.use_case.sources[name] for name in label_events(context)]
    return [
        key
        for key in sorted(_asked(context) - set(ingested))
        if any(partitions.within(source.history, key) for source in sources)
    ]


def _asked(context: StageContext) -> set[str]:
    """Return the partition and those of its label's lookback, ingested or not."""
    if not label_events(context):
        return {context.key}
    use_case = context.use_case
    return {context.key, *partitions.lookback(use_case, context.key, use_case.label.lookback)}
