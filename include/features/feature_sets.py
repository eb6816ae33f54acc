"""Feature sets: the views of a use case with their SQL, versioned by their definitions' digest.

A feature set is kept as a plain dict with the models trained on it, so an old one can be computed
again although the use case has moved on. `FeatureView.version` names the lake table of a view; the
feature set's version names its online rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal, cast

import pyarrow as pa

from include.config.durations import format_duration, parse_duration
from include.config.use_case import UseCase
from include.errors import ConfigError, MissingPartition
from include.features import visibility
from include.features.visibility import Visible
from include.lake.sql import TIMESTAMP
from include.pipeline.feature_outputs import FeatureOutputs, FeatureTable
from include.point_in_time.curated import ARROW_TYPES
from include.point_in_time.queries import resolve_sql
from include.records.records import Records, StageResult

_FORMAT = 1


@dataclass(frozen=True)  # without slots: its version is kept once it is known
class FeatureView:
    """One view of a feature set.

    `source` (columns taken as they are) or `sql` (its full text) says what it is made of.
    """

    name: str
    grain: Literal["snapshot", "event"]
    source: str | None
    sql: str | None
    lookback: timedelta
    ttl: timedelta
    columns: dict[str, str]
    key: str
    key_type: str
    availability: timedelta
    visible: Visible | None = "with_request"  # event grain only, None for a snapshot

    @property
    def definition(self) -> dict[str, Any]:
        """The view as plain values; every field of it counts for the version."""
        plain = asdict(self)
        plain |= {
            name: format_duration(getattr(self, name))
            for name in ("lookback", "ttl", "availability")
        }
        plain["columns"] = [[name, kind] for name, kind in self.columns.items()]
        # Definitions of before this choice did not state it: left out, their versions stay.
        if self.visible != "at_as_of":
            del plain["visible"]
        return plain

    @cached_property
    def version(self) -> str:
        """Ten hex digits of the digest of the definition."""
        return _version({"format": _FORMAT, **self.definition})

    @property
    def first_versions(self) -> bool:
        """Whether the view's rows come with the request, and every version of them is kept.

        A query shows a corrected row in its newest version alone, which no request has brought.
        """
        return self.visible == "with_request" and self.source is not None

    def table(self, use_case: str) -> str:
        """Return the lake table that holds the view's rows."""
        return f"{use_case}/features/{self.name}@{self.version}"

    @property
    def schema(self) -> pa.Schema:
        """Columns of a row: entity key, event_timestamp, created_timestamp, features in order."""
        return pa.schema(
            [
                (self.key, ARROW_TYPES[self.key_type]),
                ("event_timestamp", TIMESTAMP),
                ("created_timestamp", TIMESTAMP),
                *((name, ARROW_TYPES[kind]) for name, kind in self.columns.items()),
            ]
        )


@dataclass(frozen=True)
class FeatureSet:
    """The views that a model reads, in order."""

    views: tuple[FeatureView, ...]

    @cached_property
    def version(self) -> str:
        """Ten hex digits of the digest over the views' names and versions, in order."""
        return _version([[view.name, view.version] for view in self.views])

    @property
    def key(self) -> str:
        """The entity key of all views."""
        return self.views[0].key

    @property
    def feature_types(self) -> dict[str, str]:
        """All features, in order of the views, with their types."""
        return {name: kind for view in self.views for name, kind in view.columns.items()}

    @property
    def ttl(self) -> timedelta:
        """The shortest ttl of the views."""
        return min(view.ttl for view in self.views)

    def to_dict(self) -> dict[str, Any]:
        """Return the set as plain values that `from_dict` reads back."""
        return {
            "format": _FORMAT,
            "version": self.version,
            "views": [view.definition for view in self.views],
        }

    @classmethod
    def from_dict(cls, definition: Mapping[str, Any]) -> FeatureSet:
        """Rebuild a feature set.

        Raises:
            ConfigError: the definition was changed since its version was made, or is of another
                format.
        """
        if definition.get("format") != _FORMAT:
            raise ConfigError(
                f"feature set of format {definition.get('format')}; this Evergreen reads format "
                f"{_FORMAT}"
            )
        feature_set = cls(tuple(_view(plain) for plain in definition["views"]))
        if feature_set.version != definition["version"]:
            raise ConfigError(
                f"feature set {definition['version']} now has digest {feature_set.version}; "
                "restore its record"
            )
        return feature_set


def current(use_case: UseCase) -> FeatureSet:
    """Return the feature set that a use case defines now."""
    return FeatureSet(
        tuple(
            FeatureView(
                name=name,
                grain=view.grain,
                source=view.source,
                sql=None if view.sql is None else resolve_sql(use_case, view.sql),
                lookback=view.lookback,
                ttl=view.ttl,
                columns=dict(view.columns),
                key=use_case.entity.key,
                key_type=use_case.entity.type,
                availability=use_case.availability,
                visible=visibility.visibility_of(use_case, name),
            )
            for name, view in use_case.features.items()
        )
    )


def recorded(records: Records, use_case: str, version: str) -> FeatureSet:
    """Return the feature set of a version on record.

    Raises:
        ConfigError: it was never recorded.
    """
    row = records.feature_sets.get(use_case, version)
    if row is None:
        raise ConfigError(
            f"{use_case}: feature set {version} is not on record; run materialize_features for a "
            "partition first"
        )
    return FeatureSet.from_dict(row.definition)


def sets_to_compute(
    records: Records, use_case: UseCase, keys: Sequence[str]
) -> dict[str, list[FeatureSet]]:
    """Return the feature sets that each partition must hold, by key, the current one first.

    The others are those that a judgement can ask for: of champion, previous and newest candidate,
    of the model that the partition is judged against when it is backfilled (released from the
    newest partition before it), and of models released from it or later: they were trained on it,
    and a judgement that compares with them reads its rows.
    """
    return NeededSets(records, use_case).by_key(keys)


class NeededSets:
    """The feature sets that partitions must hold, by the models that are on record now."""

    def __init__(self, records: Records, use_case: UseCase) -> None:
        self._records, self._use_case = records, use_case
        self._newest = current(use_case)
        self._sets: dict[str, FeatureSet] = {self._newest.version: self._newest}
        route = records.routes.get(use_case.name)
        routed = {
            number
            for number in (route.champion, route.previous, route.challenger)
            if number is not None
        }
        if (waiting := records.releases.waiting(use_case.name)) is not None:
            routed.add(waiting.challenger)  # which a newer candidate may not follow
        models = records.models.of(use_case.name)
        newest_candidate = max(
            (model.version for model in models if model.state in ("candidate", "challenger")),
            default=None,
        )
        self._always = {
            model.feature_set
            for model in models
            if model.version in routed or model.version == newest_candidate
        }
        self._released = sorted(
            (model.partition, model.version, model.feature_set)
            for model in models
            if model.state == "released"
        )

    def by_key(self, keys: Sequence[str]) -> dict[str, list[FeatureSet]]:
        """Return the sets of some partitions, by key, the current one first."""
        return {key: self._of(key) for key in keys}

    def _of(self, key: str) -> list[FeatureSet]:
        judged_against = [version for partition, _, version in self._released if partition < key]
        trained_on_it = {version for partition, _, version in self._released if partition >= key}
        versions = self._always | trained_on_it | {*judged_against[-1:]}
        others = sorted(versions - {self._newest.version})
        for version in others:
            if version not in self._sets:
                self._sets[version] = recorded(self._records, self._use_case.name, version)
        return [self._newest, *(self._sets[version] for version in others)]


def tables_by_view(result: StageResult) -> dict[str, FeatureTable]:
    """Return the feature tables of a result by the version of their view: sets share views."""
    sets = FeatureOutputs.of(result).feature_sets.values()
    return {table.version: table for tables in sets for table in tables.values()}


def keys_without(results: Iterable[StageResult], feature_set: FeatureSet) -> list[str]:
    """Return the keys of results that lack a view of the set in its version."""
    return [result.key for result in results if not _holds(result, feature_set)]


def require_results(
    records: Records, use_case: UseCase, feature_set: FeatureSet, keys: Sequence[str]
) -> list[StageResult]:
    """Return the features results of partitions, each of which must hold every view of the set.

    A partition that was never computed is not taken for one without rows, except where all sources
    allow gaps: then it is left out.

    Raises:
        MissingPartition: some do not hold a view; the message names the view, its version, the
            partitions and the command that fills them.
    """
    name = use_case.name
    result_by_key = {
        result.key: result
        for result in records.results.of(name, stage="materialize_features", keys=list(keys))
        if result.state == "done"
    }
    gaps_allowed = all(source.gaps == "allow" for source in use_case.sources.values())
    absent = [] if gaps_allowed else [key for key in keys if key not in result_by_key]
    results = [result_by_key[key] for key in keys if key in result_by_key]
    versions_by_key = {result.key: tables_by_view(result).keys() for result in results}
    for view in feature_set.views:
        lacking = sorted(
            {
                *absent,
                *(key for key, versions in versions_by_key.items() if view.version not in versions),
            }
        )
        if not lacking:
            continue
        shown = ", ".join(lacking[:3]) + (
            f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        )
        raise MissingPartition(
            f"{name}: view {view.name} in version {view.version} (feature set "
            f"{feature_set.version}) is not there for {len(lacking)} of {len(keys)} partitions "
            f"that are needed: {shown}{_why_not_computed(results, feature_set, lacking)}. Fill "
            f"them with `evergreen load-history {name} --from {lacking[0]} --to {lacking[-1]}`",
            keys=lacking,
        )
    return results


def _holds(result: StageResult, feature_set: FeatureSet) -> bool:
    """Tell whether a result has every view of the set, in its version."""
    return tables_by_view(result).keys() >= {view.version for view in feature_set.views}


def _why_not_computed(
    results: Iterable[StageResult], feature_set: FeatureSet, keys: Sequence[str]
) -> str:
    """Return the first recorded reason, in brackets, why partitions lack a set; or no text."""
    reasons = set()
    for result in results:
        not_computed = FeatureOutputs.of(result).not_computed or {}
        if result.key in keys and feature_set.version in not_computed:
            reasons.add(not_computed[feature_set.version])
    return f" ({min(reasons)})" if reasons else ""


def _view(plain: Mapping[str, Any]) -> FeatureView:
    """Read a view's definition; `visible` is missing where there was no choice yet."""
    return FeatureView(
        name=plain["name"],
        grain=cast(Literal["snapshot", "event"], plain["grain"]),
        source=plain["source"],
        sql=plain["sql"],
        lookback=parse_duration(plain["lookback"]),
        ttl=parse_duration(plain["ttl"]),
        columns=dict(plain["columns"]),
        key=plain["key"],
        key_type=plain["key_type"],
        availability=parse_duration(plain["availability"]),
        visible=cast(Visible, plain.get("visible", "with_request"))
        if plain["grain"] == "event"
        else None,
    )


def _version(definition: object) -> str:
    # Ten hex digits are 40 bits: enough among the few hundred definitions of an installation, and
    # short in the names of tables.
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:10]
