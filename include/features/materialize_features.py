"""Stage `materialize_features`: the rows of every feature view that is needed.

A snapshot view has one row an entity, an event view one a source row. Inputs: curated sources of
the view's lookback, as known before `as_of`. Outputs: lake tables `features/<view>@<version>`, and
when live the online rows. A partition's digest is that of the current feature set; feature sets of
older models are computed beside it, and one that can no longer be computed (its sources are gone)
is named, not fatal.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from msgspec import UNSET

from include.errors import Busy, ConfigError, MissingPartition
from include.features import feature_sets
from include.features.feature_sets import FeatureSet, FeatureView, NeededSets
from include.features.typed_rows import TIMES
from include.features.view_rows import ViewRows, sources_of
from include.lake.digests import combine, digest
from include.pipeline.feature_outputs import FeatureOutputs, FeatureTable
from include.pipeline.outputs import optional
from include.pipeline.stage import GAP, Input, Outcome, ReadBack, Stage, StageContext, lost
from include.pipeline.validation_outputs import ValidationOutputs
from include.point_in_time import partitions
from include.point_in_time.curated import curated_table
from include.records.records import StageResult

if TYPE_CHECKING:
    from include.point_in_time.views import AsOfViews

NAME = "materialize_features"
FIELDS = (
    "cadence",
    "cut_off",
    "availability",
    "entity",
    "sources",
    "features",
    "label.source",
    "label.sql",
)
LIBRARIES = ("duckdb", "pyarrow", "sqlglot")
# Partitions over one scan, and bytes of a curated row in it: more would hold more curated rows at
# once, fewer would scan more often. What does not fit is spilled.
CHUNK, ROW_BYTES = 400, 200

log = logging.getLogger(__name__)


def inputs(context: StageContext) -> list[Input]:
    """Return the curated digests of the lookback, and the versions of the feature sets to compute.

    Raises:
        MissingPartition: a partition of the lookback is not validated (or blocked), and its sources
            allow no gap.
    """
    needed = _needed_sets(context).by_key([context.key])[context.key]
    views = [view for feature_set in needed for view in feature_set.views]
    sources = sorted({name for view in views for name in sources_of(context.use_case, view)})
    validated = _validated(context, views, sources)
    _refuse_other_contracts(context, validated, sources)
    versions = [Input("feature_set", each.version, each.version) for each in needed]
    return [
        *versions,
        *(
            Input(f"curated/{name}", result.key, source.curated_digest)
            for result in validated
            for name, source in _outputs(context, result).sources.items()
            if name in sources
        ),
        *_gaps(context, views, sources, {result.key for result in validated}),
    ]


def compute(context: StageContext) -> Outcome:
    """Compute the partition's feature rows."""
    ((_, outcome),) = compute_range([context])
    return outcome


def compute_range(contexts: Sequence[StageContext]) -> Iterator[tuple[StageContext, Outcome]]:
    """Compute many partitions over one scan of the curated rows, each written alone.

    Digests equal those of single runs.
    """
    for chunk in _chunks(contexts):
        yield from _compute_chunk(chunk)


def read_back(context: StageContext, result: StageResult) -> Iterator[ReadBack]:
    """Yield each view's partition with its digest on record and that of the lake's rows."""
    order = [context.use_case.entity.key, *TIMES]
    for tables in FeatureOutputs.of(result).feature_sets.values():
        for recorded in tables.values():
            if recorded.rows:
                rows = context.lake.read(recorded.table, keys=[result.key])
                yield ReadBack(
                    recorded.table, result.key, recorded.digest, digest(rows, sort_by=order)
                )


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Bring the online rows to this partition, where they are not there yet."""
    from include.features import online_sync

    if outcome.state != "done":
        return {}
    outputs = FeatureOutputs.of(outcome)
    return online_sync.materialize(
        context, sorted(outputs.feature_sets), current=str(outputs.current)
    )


def _chunks(contexts: Sequence[StageContext]) -> Iterator[list[StageContext]]:
    """Cut a range into parts whose curated rows fit into memory.

    A part has as many partitions as its views look back on, whatever their rows: what it loads is
    then at most twice what it computes.
    """
    use_case, chunk, rows = contexts[0].use_case, list[StageContext](), 0
    most = contexts[0].settings.memory_bytes // 2 // ROW_BYTES
    spans = [view.lookback for view in use_case.features.values() if view.sql is not None]
    least = len(partitions.lookback(use_case, contexts[-1].key, max(spans, default=timedelta(0))))
    for context in contexts:
        result = context.result("validate_data")
        sources = ValidationOutputs.of(result).sources.values() if result is not None else ()
        rows += sum(source.rows for source in sources if not optional(source.version))
        chunk.append(context)
        if len(chunk) >= CHUNK or (rows > most and len(chunk) >= least):
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk


def _outputs(context: StageContext, result: StageResult) -> ValidationOutputs:
    """Return what a result holds, read once a run: in a range each is one of many lookbacks."""
    known: dict[int, tuple[StageResult, ValidationOutputs]] = context.once("outputs", dict)
    if id(result) not in known:
        # The result is kept with it, so that nothing else gets its id.
        known[id(result)] = result, ValidationOutputs.of(result)
    return known[id(result)][1]


def _needed_sets(context: StageContext) -> NeededSets:
    return context.once(
        "feature sets", lambda: feature_sets.NeededSets(context.records, context.use_case)
    )


def _validated(
    context: StageContext, views: Iterable[FeatureView], sources: Sequence[str]
) -> list[StageResult]:
    """Return the validation results of the lookback.

    Where all sources allow gaps, only the partition itself must be there.
    """
    use_case, key = context.use_case, context.key
    keys = _lookback(context, views, sources)
    if not all(use_case.sources[name].gaps == "allow" for name in sources):
        return context.need("validate_data", keys)
    results = [context.result("validate_data", each) for each in keys]
    done = [result for result in results if result is not None and result.state == "done"]
    if any(result.key == key for result in done):
        return done
    return context.need("validate_data", [key])


def _lookback(
    context: StageContext, views: Iterable[FeatureView], sources: Sequence[str]
) -> list[str]:
    """Return the partition, and the earlier ones that views look back on and sources can have."""
    use_case, key = context.use_case, context.key
    widest = max((view.lookback for view in views), default=timedelta(0))
    histories = [use_case.sources[name].history for name in sources]
    return [
        earlier
        for earlier in partitions.lookback(use_case, key, widest)
        if earlier == key or any(partitions.within(history, earlier) for history in histories)
    ]


def _gaps(
    context: StageContext,
    views: Iterable[FeatureView],
    sources: Sequence[str],
    there: Collection[str],
) -> Iterator[Input]:
    """Yield what stands for the partitions that are passed over, since sources may lack them.

    One that blocked has a digest, that of no rows.
    """
    for key in _lookback(context, views, sources):
        if key in there:
            continue
        result = context.result("validate_data", key)
        recorded = {} if result is None else _outputs(context, result).sources
        for name in sources:
            if context.use_case.sources[name].kind == "events":
                content = recorded[name].curated_digest if name in recorded else GAP
                yield Input(f"curated/{name}", key, content)


def _refuse_other_contracts(
    context: StageContext, validated: Sequence[StageResult], sources: Sequence[str]
) -> None:
    """Refuse curated rows that lie in the table of another contract: no view would see them.

    Raises:
        MissingPartition: some do, or a source was declared after their partition was taken in;
            names the command.
    """
    use_case = context.use_case
    lacking: dict[str, set[str]] = {}  # sources by partition key
    for name in sources:
        source = use_case.sources[name]
        if source.kind == "static":
            continue
        table = curated_table(context.lake, use_case, name)
        for result in validated:
            recorded = _outputs(context, result).sources.get(name)
            if recorded is None:
                usable = source.gaps == "allow" or not partitions.within(source.history, result.key)
            else:
                # Records of before tables had a version in their name do not state the table.
                recorded_table = recorded.table or f"{use_case.name}/curated/{name}"
                usable = not recorded.rows or recorded_table == table
            if not usable:
                lacking.setdefault(result.key, set()).add(name)
    if lacking:
        keys = sorted(lacking)
        names = sorted(set().union(*lacking.values()))
        raise MissingPartition(
            f"{use_case.name}: {len(keys)} partitions ({keys[0]} to {keys[-1]}) hold no curated "
            f"rows of {', '.join(names)} in the columns and types of today. Fill them with "
            f"`evergreen load-history {use_case.name} --from {keys[0]} --to {keys[-1]}`",
            keys=keys,
        )


def _compute_chunk(contexts: Sequence[StageContext]) -> Iterator[tuple[StageContext, Outcome]]:
    first = contexts[0]
    needed = _needed_sets(first).by_key([context.key for context in contexts])
    sets = {each.version: each for of_key in needed.values() for each in of_key}
    if not first.rehearsal:
        for feature_set in sets.values():
            first.records.feature_sets.add(
                first.use_case.name, feature_set.version, feature_set.to_dict()
            )
    views = {view.version: view for feature_set in sets.values() for view in feature_set.views}
    with ViewRows(contexts, list(views.values())) as rows:

        def compute_views(as_of: AsOfViews | None, context: StageContext) -> _Computed:
            return _compute_views(context, needed[context.key], rows, as_of)

        for context, computed in rows.each(compute_views):
            yield context, _write_views(context, needed[context.key], computed)


class _Computed(NamedTuple):
    """A partition's rows of each view with their digest, or why they cannot be computed."""

    rows: dict[str, tuple[pa.Table, str]]
    reasons: dict[str, str]


def _compute_views(
    context: StageContext,
    needed: Sequence[FeatureSet],
    view_rows: ViewRows,
    as_of: AsOfViews | None,
) -> _Computed:
    """Compute every view of a partition's feature sets, each once."""
    current_views = {view.version for view in needed[0].views}
    computed = _Computed({}, {})
    for view in _views_of(needed):
        try:
            rows = view_rows.of(view, context, as_of)
        except ConfigError as error:
            if view.version in current_views:
                raise
            computed.reasons[view.version] = str(error)
            continue
        computed.rows[view.version] = rows, digest(rows, sort_by=[view.key, *TIMES])
    return computed


def _write_views(
    context: StageContext, needed: Sequence[FeatureSet], computed: _Computed
) -> Outcome:
    """Write every view of a partition's feature sets, and say what came of it."""
    tables: dict[str, FeatureTable] = {}
    for view in _views_of(needed):
        if view.version not in computed.rows:
            continue
        rows, content = computed.rows[view.version]
        table = view.table(context.use_case.name)
        try:
            context.lake.replace(table, context.key, rows, fence=context.fence)
        except Busy as error:
            return lost(error)
        tables[view.version] = FeatureTable(
            table=table, version=view.version, rows=len(rows), digest=content
        )
    return _outcome(needed, tables, computed.reasons)


def _views_of(needed: Sequence[FeatureSet]) -> list[FeatureView]:
    """Return the views of some feature sets, each once: sets share views."""
    return list({view.version: view for each in needed for view in each.views}.values())


def _outcome(
    needed: Sequence[FeatureSet], tables: Mapping[str, FeatureTable], reasons: Mapping[str, str]
) -> Outcome:
    """Return the outcome of a partition: `tables` and `reasons` are by view version."""
    computed = {
        each.version: {view.name: tables[view.version] for view in each.views}
        for each in needed
        if all(view.version in tables for view in each.views)
    }
    not_computed = {
        each.version: reasons[view.version]
        for each in needed[1:]
        for view in each.views
        if view.version in reasons
    }
    for version, reason in not_computed.items():
        log.warning("feature set %s can no longer be computed: %s", version, reason)
    current = needed[0]
    content = combine([f"{view.name}:{tables[view.version].digest}" for view in current.views])
    outputs = FeatureOutputs(
        feature_sets=computed, current=current.version, not_computed=not_computed or UNSET
    )
    return Outcome("done", content, outputs=outputs.plain())


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    inputs=inputs,
    compute=compute,
    compute_range=compute_range,
    effects=effects,
    read_back=read_back,
)
