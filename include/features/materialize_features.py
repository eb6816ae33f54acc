"""Stage `materialize_features`: one row an entity (snapshot) or a source row (event), for each view
that is needed.

Inputs: curated sources of the view's lookback, as known before `as_of`. Outputs: lake tables
`features/<view>@<version>`, and when live the online rows. A partition's digest is that of the
current feature set; feature sets of older models are computed beside it, and one that can no longer
be computed (its sources are gone) is named, not fatal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from include.config.use_case import UseCase
from include.errors import Busy, ConfigError, MissingPartition
from include.features import feature_sets
from include.features.feature_sets import FeatureSet, FeatureView
from include.lake.digests import combine, digest
from include.lake.sql import connect, quote
from include.pipeline.declared import cast
from include.pipeline.stage import Input, Outcome, ReadBack, Stage, StageContext, lost
from include.point_in_time import decisions, partitions
from include.point_in_time.curated import curated_schema, curated_table
from include.point_in_time.queries import tables_in
from include.point_in_time.views import AsOfViews, literal
from include.records.records import StageResult

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
LIBRARIES = ("duckdb", "pyarrow")
CHUNK = 120

log = logging.getLogger(__name__)
_TIMES = ("event_timestamp", "created_timestamp")


def inputs(context: StageContext) -> list[Input]:
    """Return the curated digests of the lookback, and the versions of the feature sets to compute.

    Raises: MissingPartition: a partition of the lookback is not validated (or blocked), and its
        sources allow no gap.
    """
    needed = feature_sets.needed(context.records, context.use_case, [context.key])[context.key]
    found = [Input("feature_set", fs.version, fs.version) for fs in needed]
    used = {
        name for fs in needed for view in fs.views for name in sources_of(context.use_case, view)
    }
    validated = _validated(context, needed, sorted(used))
    _in_this_version(context, validated, sorted(used))
    for result in validated:
        for name, source in result.outputs.get("sources", {}).items():
            if name in used and "curated_digest" in source:
                found.append(Input(f"curated/{name}", result.key, source["curated_digest"]))
    return found


def compute(context: StageContext) -> Outcome:
    """Compute the partition's feature rows."""
    ((_, outcome),) = compute_range([context])
    return outcome


def compute_range(contexts: Sequence[StageContext]) -> Iterator[tuple[StageContext, Outcome]]:
    """Compute many partitions over one scan of the curated rows, each written alone; digests
    equal those of single runs.
    """
    for start in range(0, len(contexts), CHUNK):
        yield from _compute_chunk(contexts[start : start + CHUNK])


def read_back(context: StageContext, result: StageResult) -> Iterator[ReadBack]:
    """Yield each view's partition with its digest on record and that of the lake's rows."""
    order = [context.use_case.entity.key, "event_timestamp", "created_timestamp"]
    for views in result.outputs.get("feature_sets", {}).values():
        for made in views.values():
            if made["rows"]:
                rows = context.lake.read(made["table"], keys=[result.key])
                yield ReadBack(
                    made["table"], result.key, made["digest"], digest(rows, sort_by=order)
                )


def effects(context: StageContext, outcome: Outcome) -> dict[str, Any]:
    """Bring the online rows to this partition, where they are not there yet."""
    from include.features import online_sync

    if outcome.state != "done":
        return {}
    return online_sync.materialize(
        context, sorted(outcome.outputs["feature_sets"]), current=outcome.outputs["current"]
    )


def sources_of(use_case: UseCase, view: FeatureView) -> list[str]:
    """Return the sources that a view reads.

    Raises:
        ConfigError: its SQL cannot be parsed, or reads what is no source.
    """
    if view.source is not None:
        names = frozenset({view.source})
    else:
        try:
            names = tables_in(str(view.sql))
        except ConfigError as error:
            raise ConfigError(f"{use_case.name}: view {view.name}: the query {error}") from None
    unknown = sorted(names - set(use_case.sources))
    if unknown:
        raise ConfigError(
            f"{use_case.name}: view {view.name} reads {unknown}; sources are "
            f"{sorted(use_case.sources)}"
        )
    return sorted(names)


def _validated(
    context: StageContext, needed: Iterable[FeatureSet], used: Sequence[str]
) -> list[StageResult]:
    """Return the validation results of the lookback; those of sources that allow gaps may be
    missing.
    """
    use_case, key = context.use_case, context.key
    widest = max((view.lookback for fs in needed for view in fs.views), default=timedelta(0))
    expected = [
        k
        for k in partitions.lookback(use_case, key, widest)
        if k == key or any(partitions.within(_history(use_case, name), k) for name in used)
    ]
    keys = sorted(expected)
    if not all(use_case.sources[name].gaps == "allow" for name in used):
        return context.need("validate_data", keys)
    present = [context.result("validate_data", k) for k in keys]
    done = [result for result in present if result is not None and result.state == "done"]
    return (
        [*done]
        if any(result.key == key for result in done)
        else context.need("validate_data", [key])
    )


def _in_this_version(
    context: StageContext, validated: Sequence[StageResult], used: Sequence[str]
) -> None:
    """Refuse curated rows that lie in the table of another contract: the view would not see them.

    Raises: MissingPartition: some do, or a source was declared after their partition was taken in;
        names the command.
    """
    use_case, lacking = context.use_case, dict[str, list[str]]()
    for name in used:
        source = use_case.sources[name]
        if source.kind == "static":
            continue
        table = curated_table(context.lake, use_case, name)
        for result in validated:
            fact = result.outputs.get("sources", {}).get(name)
            if fact is None:
                there = source.gaps == "allow" or not partitions.within(source.history, result.key)
            else:
                there = (
                    not fact.get("rows")
                    or fact.get("table", f"{use_case.name}/curated/{name}") == table
                )
            if not there:
                lacking.setdefault(result.key, []).append(name)
    if lacking:
        keys = sorted(lacking)
        names, span = (
            sorted({name for names in lacking.values() for name in names}),
            f"--from {keys[0]} --to {keys[-1]}",
        )
        fill = f"`evergreen load-history {use_case.name} {span}`"
        raise MissingPartition(
            f"{use_case.name}: {len(keys)} partitions ({keys[0]} to {keys[-1]}) hold no curated "
            f"rows of {', '.join(names)} in the columns and types of today. Fill them with {fill}",
            keys=keys,
        )


def _history(use_case: UseCase, name: str) -> Any:
    return use_case.sources[name].history


def _compute_chunk(contexts: Sequence[StageContext]) -> Iterator[tuple[StageContext, Outcome]]:
    first = contexts[0]
    needed = feature_sets.needed(
        first.records, first.use_case, [context.key for context in contexts]
    )
    sets = {fs.version: fs for each in needed.values() for fs in each}
    if not first.rehearsal:
        for fs in sets.values():
            first.records.feature_sets.add(first.use_case.name, fs.version, fs.to_dict())
    every = {view.version: view for fs in sets.values() for view in fs.views}
    now = {view.version for view in needed[first.key][0].views}
    with _Loaded(first, contexts, list(every.values())) as loaded:
        for context in contexts:
            written: dict[str, dict[str, Any]] = {}
            gone: dict[str, str] = {}
            taken: Outcome | None = None
            for view in {
                view.version: view for fs in needed[context.key] for view in fs.views
            }.values():
                version = view.version
                try:
                    rows = loaded.rows(view, context)
                except ConfigError as error:
                    if version in now:
                        raise
                    gone[version] = str(error)
                    continue
                table = view.table(context.use_case.name)
                try:
                    context.lake.replace(table, context.key, rows, fence=context.fence)
                except Busy as error:
                    taken = lost(error)
                    break
                written[version] = {
                    "table": table,
                    "version": version,
                    "rows": len(rows),
                    "digest": digest(rows, sort_by=[view.key, *_TIMES]),
                }
            yield context, taken or _outcome(needed[context.key], written, gone)


def _outcome(
    needed: Sequence[FeatureSet], written: dict[str, dict[str, Any]], gone: dict[str, str]
) -> Outcome:
    sets = {
        fs.version: {view.name: written[view.version] for view in fs.views}
        for fs in needed
        if all(view.version in written for view in fs.views)
    }
    now = needed[0]
    lost = {
        fs.version: gone[view.version]
        for fs in needed[1:]
        for view in fs.views
        if view.version in gone
    }
    for version, why in lost.items():
        log.warning("feature set %s can no longer be computed: %s", version, why)
    answer = combine([f"{view.name}:{written[view.version]['digest']}" for view in now.views])
    outputs = {"feature_sets": sets, "current": now.version} | (
        {"not_computed": lost} if lost else {}
    )
    return Outcome("done", answer, outputs=outputs)


class _Loaded:
    """The curated rows of all partitions' lookbacks, loaded once."""

    def __init__(
        self, first: StageContext, contexts: Sequence[StageContext], views: Sequence[FeatureView]
    ) -> None:
        self._use_case, self._contexts, self._lake = first.use_case, contexts, first.lake
        self._sql = [view for view in views if view.sql is not None]
        self._views: AsOfViews | None = None
        self._types: dict[str, dict[str, str]] = {}  # by view version: the same for every partition

    def __enter__(self) -> _Loaded:
        readable: list[FeatureView] = []
        for view in self._sql:
            try:
                sources_of(self._use_case, view)
            except ConfigError:
                continue  # reported where the view is asked for
            readable.append(view)
        if readable:
            keys = {
                k
                for context in self._contexts
                for view in readable
                for k in self._keys(view, context)
            }
            names = {name for view in readable for name in sources_of(self._use_case, view)}
            self._views = AsOfViews(
                connect(alone=True),
                self._lake,
                self._use_case,
                keys=sorted(keys),
                sources=sorted(names),
                versions=self._versions(names),
            )
            self._views.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._views is not None:
            self._views.__exit__(*error)

    def rows(self, view: FeatureView, context: StageContext) -> pa.Table:
        """Return a view's rows for one partition: entity key, the two times, the declared
        columns; sorted.
        """
        names = sources_of(self._use_case, view)
        if view.sql is not None:
            assert self._views is not None
            self._views.at(context.period, view.lookback)
            relation = f"(\n{view.sql}\n)"
            if view.version not in self._types:
                self._types[view.version] = _described(self._views.query, relation)
            return _typed(
                self._views.query,
                relation,
                self._types[view.version],
                self._use_case,
                view,
                context,
            )
        with connect() as con:
            schema = curated_schema(self._use_case.sources[names[0]])
            table = curated_table(self._lake, self._use_case, names[0])
            self._lake.scan(con, "curated", table, keys=[context.key], schema=schema)
            known = f"({decisions.standing(self._use_case.sources[names[0]], view.key, 'curated')})"

            def ask(sql: str) -> pa.Table:
                return con.sql(sql).to_arrow_table()

            return _typed(ask, known, _described(ask, known), self._use_case, view, context)

    def _versions(self, names: Iterable[str]) -> dict[str, set[str]]:
        """Return the versions of static sources that the partitions know; what a record does not
        tell is loaded whole.
        """
        told = [
            result.outputs["sources"] if (result := context.result("validate_data")) else {}
            for context in self._contexts
        ]
        found = {name: {facts.get(name, {}).get("version") for facts in told} for name in names}
        static = (name for name in found if self._use_case.sources[name].kind == "static")
        return {
            name: {str(version) for version in found[name]}
            for name in static
            if None not in found[name]
        }

    def _keys(self, view: FeatureView, context: StageContext) -> list[str]:
        return partitions.lookback(self._use_case, context.key, view.lookback)


def _described(ask: Callable[[str], pa.Table], relation: str) -> dict[str, str]:
    """Return the columns of a relation with DuckDB's types."""
    described = ask(f"DESCRIBE SELECT * FROM {relation}")
    return dict(
        zip(described["column_name"].to_pylist(), described["column_type"].to_pylist(), strict=True)
    )


def _typed(
    ask: Callable[[str], pa.Table],
    relation: str,
    found: Mapping[str, str],
    use_case: UseCase,
    view: FeatureView,
    context: StageContext,
) -> pa.Table:
    """Return a relation's rows with exactly the declared columns and types, checked and sorted."""
    where = f"{use_case.name}: view {view.name}"
    wanted = {view.key: view.key_type, **view.columns}
    missing = [
        name for name in (*wanted, *(_TIMES if view.grain == "event" else ())) if name not in found
    ]
    if missing:
        raise ConfigError(
            f"{where}: no column {missing} among {list(found)}; add it to the SELECT, or correct "
            "the YAML"
        )
    chosen = [
        f"{cast(name, found[name], kind, where)} AS {quote(name)}" for name, kind in wanted.items()
    ]
    if view.grain == "snapshot":
        times = [literal(context.as_of), literal(context.as_of + view.availability)]
    else:
        times = [f"CAST({name} AS TIMESTAMPTZ)" for name in _TIMES]
        relation = _arrived(relation, view, context)
        # known from the as_of of the partition in which it arrived, as a snapshot is.
        if view.visible == "at_as_of":
            times[1] = literal(context.as_of + view.availability)
    chosen[1:1] = [f"{time} AS {name}" for time, name in zip(times, _TIMES, strict=True)]
    order = ", ".join([quote(view.key), *_TIMES, *(quote(name) for name in view.columns)])
    try:
        rows = ask(f"SELECT {', '.join(chosen)} FROM {relation} ORDER BY {order}").cast(view.schema)
    except (duckdb.Error, pa.ArrowInvalid) as error:
        raise ConfigError(
            f"{where}: a value does not fit its column ({str(error).splitlines()[0]}); widen the "
            "type"
        ) from None
    _check(rows, where, view)
    return rows


def _arrived(relation: str, view: FeatureView, context: StageContext) -> str:
    """Return the rows that arrived in the partition; of an at_as_of view one of each entity and
    moment.

    The rows of such a view share their created time, so the one that stands is chosen here: the
    newest, as the join would.
    """
    event, created = _TIMES
    start, end = literal(context.period.arrival_start), literal(context.as_of)
    arrived = f"SELECT * FROM {relation} WHERE {created} >= {start} AND {created} < {end}"
    if view.visible == "at_as_of":
        order = "".join(f", {quote(name)} DESC NULLS LAST" for name in view.columns)
        arrived += (
            f" QUALIFY row_number() OVER (PARTITION BY {quote(view.key)}, {event} ORDER BY "
            f"{created} DESC{order}) = 1"
        )
    return f"({arrived})"


def _check(rows: pa.Table, where: str, view: FeatureView) -> None:
    """Refuse rows without an entity, and two rows of one entity in a snapshot."""
    entities = rows.column(view.key)
    if entities.null_count:
        raise ConfigError(
            f"{where}: {entities.null_count} rows have no {view.key}; leave them out in the SQL"
        )
    if view.grain == "snapshot" and pc.count_distinct(entities).as_py() != len(rows):
        counted = sorted(
            (pair["counts"], pair["values"]) for pair in pc.value_counts(entities).to_pylist()
        )[::-1]
        shown = ", ".join(f"{key} ({count} rows)" for count, key in counted[:3] if count > 1)
        raise ConfigError(
            f"{where}: a snapshot has one row an entity, but {shown}; GROUP BY {view.key} in the "
            "SQL"
        )


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
