"""A use case: one YAML file, typed, frozen, with every default in the model.

`use_case_file` reads it.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from include.config.durations import Duration, format_duration, period_start
from include.config.names import Name
from include.config.use_case_model import (
    Decision,
    Fallback,
    Gates,
    Log,
    Monitoring,
    Online,
    Retention,
    Training,
    Wait,
)
from include.config.use_case_parts import Entity, Label, View
from include.config.use_case_release import Release
from include.config.use_case_sources import History, Source, Strict


class UseCase(Strict):
    """One use case: what is predicted, of whom, from which tables, and what a model must reach."""

    name: Name = Field(description="Name of the use case, and of its file without .yaml.")
    title: str = Field(
        default="", description="The question in words, shown in reports. Empty: the name."
    )
    owner: str = Field(
        default="ml-engineering",
        description="Who answers for it; shown in Airflow and in Feast's registry.",
    )
    cadence: Literal["day", "week", "month"] = Field(
        default="day",
        description="Length of a period. One model is trained and judged a period; a partition's "
        "key is the first day of its period.",
    )
    cut_off: Duration = Field(
        default=timedelta(0),
        description="How long after the end of a period its rows are waited for; the sum is the "
        "partition's as_of.",
    )
    availability: Duration = Field(
        default=timedelta(0),
        description="How long after as_of the features are visible to decisions: the time that "
        "computing them takes.",
    )
    history: History = Field(description="The first partition, and the last one of a closed set.")
    entity: Entity = Field(description="Whom or what a score is about, such as a customer.")
    sources: dict[Name, Source] = Field(
        min_length=1, description="The tables that rows come from, by the name that SQL uses."
    )
    label: Label = Field(description="The outcome, 0 or 1, and when it is known.")
    features: dict[Name, View] = Field(
        min_length=1, description="The feature views: what is known of an entity, by view."
    )
    training: Training = Field(
        default=Training(), description="Which rows and features are trained on, and how."
    )
    gates: Gates = Field(default=Gates(), description="What a model must reach to be released.")
    decision: Decision = Field(
        default=Decision(), description="The threshold, and what is decided on either side of it."
    )
    fallback: Fallback = Field(
        default=Fallback(),
        description="What the serving node answers without, or with only stale, features.",
    )
    online: Online = Field(
        default=Online(),
        description="Where the newest features are kept beside the serving node's own rows.",
    )
    release: Release = Field(
        default=Release(),
        description="How a model is released: its steps, by what they are judged, what is watched.",
    )
    log: Log = Field(
        default=Log(),
        description="The prediction log: how long its lines are kept, and what happens on a full "
        "disk.",
    )
    retention: Retention = Field(
        default=Retention(), description="How much is kept that nothing needs any more."
    )
    monitoring: Monitoring = Field(
        default=Monitoring(), description="From when on features count as drifted, and the report."
    )
    wait: Wait = Field(
        default=Wait(), description="How long stages wait for partitions that are on their way."
    )
    folder: SkipJsonSchema[Path] = Field(
        default=Path("."),
        exclude=True,
        description="Folder of the YAML. Set by whoever reads the file, never written in it.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> UseCase:
        """Refuse parts that do not fit each other: unknown sources, keys, features that clash."""
        for where, name in [("label.source", self.label.source)] + [
            (f"features.{view}.source", spec.source) for view, spec in self.features.items()
        ]:
            if name is not None and name not in self.sources:
                raise ValueError(
                    f"{where}: there is no source {name!r}; sources are {sorted(self.sources)}"
                )
        histories = {"history": self.history} | {
            f"sources.{name}.history": spec.history for name, spec in self.sources.items()
        }
        for where, history in histories.items():
            for end in ("first", "last"):
                day = getattr(history, end, None)
                if day is not None and day != (right := period_start(self.cadence, day)):
                    raise ValueError(
                        f"{where}.{end}: {day} lies inside a {self.cadence}; write its key, {right}"
                    )
        view_by_column: dict[str, str] = {}
        for view, spec in self.features.items():
            for column in spec.columns:
                if column in view_by_column:
                    raise ValueError(
                        f"feature {column!r} stands in the views {view_by_column[column]!r} and "
                        f"{view!r}; rename one"
                    )
                if column in (
                    self.entity.key,
                    "event_timestamp",
                    "created_timestamp",
                    "label",
                    "label_timestamp",
                ):
                    raise ValueError(
                        f"features.{view}: {column!r} is an id, a time or the label, never a "
                        "feature"
                    )
                if (
                    spec.source == self.label.source
                    and self.label.column == column
                    and spec.source is not None
                ):
                    raise ValueError(
                        f"features.{view}: {column!r} is the label; it would leak the outcome"
                    )
                view_by_column[column] = view
        for where, names in (
            ("exclude", self.training.exclude),
            ("known_at_decision", self.training.known_at_decision),
        ):
            unknown = [name for name in names if name not in view_by_column]
            if unknown:
                raise ValueError(f"training.{where} names {unknown}, which no view has")
        return self

    @model_validator(mode="after")
    def _marked(self) -> UseCase:
        """Refuse `pii: entity` on a column that is not the entity's key: nobody would hash it."""
        for name, source in self.sources.items():
            for column, spec in source.columns.items():
                if spec.pii == "entity" and column != self.entity.key:
                    raise ValueError(
                        f"sources.{name}.columns.{column}.pii: entity is for the entity's key, "
                        f"{self.entity.key}; write pii: value"
                    )
        return self

    @model_validator(mode="after")
    def _excluded(self) -> UseCase:
        """Refuse keys in `release.exclude` that no entity can have, so that nobody is left out.

        YAML reads 007 as 7: of text such a key would be another one's.
        """
        for key in self.release.exclude:
            if self.entity.type == "string" and not isinstance(key, str):
                raise ValueError(
                    f"release.exclude: {key} is a number, but {self.entity.key} is text; write it "
                    "in quotes, as it is in the data"
                )
            if self.entity.type == "int64" and not re.fullmatch(r"0|-?[1-9]\d{0,18}", str(key)):
                raise ValueError(
                    f"release.exclude: {str(key)[:40]!r} is no whole number, as {self.entity.key} "
                    "is; correct or remove it"
                )
        return self

    @model_validator(mode="after")
    def _with_snapshots(self) -> UseCase:
        """Refuse a snapshot whose day no partition of the use case holds."""
        for name, source in self.sources.items():
            if source.snapshot is not None:
                self._check_snapshot(name, source, source.snapshot)
        return self

    @model_validator(mode="after")
    def _with_label_time(self) -> UseCase:
        """Refuse a label time of which nobody can tell when it is over, where it has to be."""
        if self.label.source is not None and self.label.assumed_lag is None:
            self.sources[self.label.source].check_length(self.label.label_time)
        return self

    def _check_snapshot(self, name: str, source: Source, day: date) -> None:
        """Refuse a snapshot whose day no partition of the use case holds.

        Raises:
            ValueError: names the source and the remedy.
        """
        where, key = f"sources.{name}.snapshot", period_start(self.cadence, day)
        if self.cut_off > day - key:
            raise ValueError(
                f"{where}: a cut_off of {format_duration(self.cut_off)} puts {day} "
                f"into the partition before {key}; leave cut_off out"
            )
        history = source.history or self.history
        if key < history.first or (history.last is not None and key > history.last):
            raise ValueError(
                f"{where}: {day} lies in the partition {key}, which is outside the "
                f"history; write history: {{first: {key}, last: {key}}}"
            )

    @property
    def key_is_row_digest(self) -> bool:
        """Whether the entity's key is an id that was made of the row, of which copies differ."""
        deciding = [self.label.source] if self.label.source is not None else list(self.sources)
        return any(self.sources[name].row_digest == self.entity.key for name in deciding)

    @property
    def is_timeless(self) -> bool:
        """Whether all decisions are of one day, as their table says no time.

        Nothing then says how a model does on decisions that come after those it was trained on.
        """
        deciding = (
            [self.sources[self.label.source]]
            if self.label.source is not None
            else [source for source in self.sources.values() if source.kind == "events"]
        )
        return bool(deciding) and all(source.snapshot is not None for source in deciding)

    @property
    def caveat(self) -> str:
        """What every report says of a use case without a time; empty of others."""
        if not self.is_timeless:
            return ""
        return "no time in the data: nothing here says how the model will do later"

    @property
    def hashes_entity(self) -> bool:
        """Whether the key of the entity tells who somebody is: then only its hash is logged."""
        return any(
            column.pii is not None
            for source in self.sources.values()
            for name, column in source.columns.items()
            if name == self.entity.key
        )

    @property
    def feature_types(self) -> dict[str, str]:
        """All features, in order of the views, with their types."""
        return {
            name: kind for view in self.features.values() for name, kind in view.columns.items()
        }

    @property
    def trained_features(self) -> list[str]:
        """The features that a model reads, in order."""
        return [name for name in self.feature_types if name not in self.training.exclude]
