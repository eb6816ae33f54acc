"""Feature sets: the views of a use case with their SQL resolved, under versions that are digests of
their definitions.

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
from typing import Any, Literal, cast

import pyarrow as pa

from include.config.durations import format_duration, parse_duration
from include.config.use_case import UseCase
from include.errors import ConfigError, MissingPartition
from include.features import visibility
from include.features.visibility import Visible
from include.lake.sql import TIMESTAMP
from include.point_in_time.queries import resolve_sql
from include.records.records import Records, StageResult

ARROW_TYPES = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
}
_FORMAT = 1


@dataclass(frozen=True, slots=True)
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
        # What was not said before there was a choice: versions on record stay.
        if self.visible != "at_as_of":
            del plain["visible"]
        return plain

    @property
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
        """Columns of the view's rows: entity key, event_timestamp, created_timestamp, then the
        features in order.
        """
        return pa.schema(
            [
                (self.key, ARROW_TYPES[self.key_type]),
                ("event_timestamp", TIMESTAMP),
                ("created_timestamp", TIMESTAMP),
                *((name, ARROW_TYPES[kind]) for name, kind in self.columns.items()),
            ]
        )


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The views that a model reads, in order."""

    views: tuple[FeatureView, ...]

    @property
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

        Raises: ConfigError: the definition was changed since its version was made, or is of another
            format.
        """
        if definition.get("format") != _FORMAT:
            raise ConfigError(
                f"feature set of format {definition.get('format')}; this Evergreen reads format "
                f"{_FORMAT}"
            )
        found = cls(tuple(_view(plain) for plain in definition["views"]))
        if found.version != definition["version"]:
            raise ConfigError(
                f"feature set {definition['version']} now has digest {found.version}; restore its "
                "record"
            )
        return found


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
                visible=visibility.of(use_case, name),
            )
            for name, view in use_case.features.items()
        )
    )


def recorded(records: Records, use_case: str, version: str) -> FeatureSet:
    """Return the feature set of that version.

    Raises:
        ConfigError: it was never recorded.
    """
    found = records.feature_sets.get(use_case, version)
    if found is None:
        raise ConfigError(
            f"{use_case}: feature set {version} is not on record; run materialize_features for a "
            "partition first"
        )
    return FeatureSet.from_dict(found.definition)


def needed(records: Records, use_case: UseCase, keys: Sequence[str]) -> dict[str, list[FeatureSet]]:
    """Return the feature sets to keep up, by partition: the current one first, then those that a
    judgement can ask for.

    They are those of champion, previous and newest candidate, of the model that the partition is
    judged against when it is backfilled (released from the newest partition before it), and of
    models released from it or later: they were trained on it, and a judgement that compares with
    them reads its rows.
    """
    now = current(use_case)
    route = records.routes.get(use_case.name)
    serving = {
        number
        for number in (route.champion, route.previous, route.challenger)
        if number is not None
    }
    models = records.models.of(use_case.name)
    newest = max(
        (model.version for model in models if model.state in ("candidate", "challenger")),
        default=None,
    )
    always = {
        model.feature_set for model in models if model.version in serving or model.version == newest
    }
    released = sorted(
        (model.partition, model.version, model.feature_set)
        for model in models
        if model.state == "released"
    )
    known: dict[str, FeatureSet] = {now.version: now}
    found: dict[str, list[FeatureSet]] = {}
    for key in keys:
        before = [version for partition, _, version in released if partition < key][-1:]
        after = {version for partition, _, version in released if partition >= key}
        wanted = sorted((always | after | {*before}) - {now.version})
        for version in wanted:
            if version not in known:
                known[version] = recorded(records, use_case.name, version)
        found[key] = [now, *(known[version] for version in wanted)]
    return found


def lacking(results: Iterable[StageResult], feature_set: FeatureSet) -> list[str]:
    """Return the keys whose recorded features do not hold every view of the set, in its version."""
    return [
        result.key
        for result in results
        if any(view.version not in made(result) for view in feature_set.views)
    ]


def made(result: StageResult) -> dict[str, dict[str, Any]]:
    """Return what a features result holds (table, rows, digest), by view version: sets share
    views.
    """
    sets = result.outputs.get("feature_sets", {}).values()
    return {one["version"]: one for views in sets for one in views.values()}


def held(
    records: Records, use_case: UseCase, feature_set: FeatureSet, keys: Sequence[str]
) -> list[StageResult]:
    """Return the features results of partitions, each of which must hold every view of the set:
    missing is not null.

    Where all sources allow gaps, a partition without a result is no fault and is left out.

    Raises: MissingPartition: some do not; the message names the view, its version, the partitions
        and the command.
    """
    name = use_case.name
    results = {
        row.key: row
        for row in records.results.of(name, stage="materialize_features", keys=list(keys))
        if row.state == "done"
    }
    gaps = all(source.gaps == "allow" for source in use_case.sources.values())
    absent = [] if gaps else [key for key in keys if key not in results]
    there = [results[key] for key in keys if key in results]
    for view in feature_set.views:
        without = sorted({*absent, *(row.key for row in there if view.version not in made(row))})
        if not without:
            continue
        shown = ", ".join(without[:3]) + (
            f" and {len(without) - 3} more" if len(without) > 3 else ""
        )
        lost = {
            str(row.outputs.get("not_computed", {}).get(feature_set.version, ""))
            for row in there
            if row.key in without
        }
        why = "".join(f" ({reason})" for reason in sorted(lost - {""})[:1])
        raise MissingPartition(
            f"{name}: view {view.name} in version {view.version} (feature set "
            f"{feature_set.version}) is not there for {len(without)} of {len(keys)} partitions "
            f"that are needed: {shown}{why}. Fill them with `evergreen load-history {name} --from "
            f"{without[0]} --to {without[-1]}`",
            keys=without,
        )
    return there


def _view(plain: Mapping[str, Any]) -> FeatureView:
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
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:10]
