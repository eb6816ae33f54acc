"""A use case: one YAML file, typed, frozen, with every default in the model.

`use_case_file` reads it.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from include.config.durations import Duration, lag_after_event, period_start
from include.config.names import ColumnName, Name
from include.config.use_case_sources import History, Share, Source, Strict


def _as_text(value: object) -> object:
    """Return a whole number as text; refuse yes, no, true and false, which YAML does not keep."""
    if isinstance(value, bool):
        raise ValueError("YAML reads this as a truth value; put it in quotes")
    return str(value) if isinstance(value, int) else value


Text = Annotated[str, BeforeValidator(_as_text)]


class Entity(Strict):
    """Whom a score is about."""

    name: Name = Field(description="What one is called, in the singular, such as account.")
    key: ColumnName = Field(
        description="Column that identifies one, of the same name in every source and view."
    )
    type: Literal["int64", "string"] = Field(
        default="int64",
        description="Type of the key. Write string for codes and for numbers with leading zeros.",
    )


class Label(Strict):
    """The outcome that is predicted: a column of a source, or SQL over the curated sources."""

    source: Name | None = Field(
        default=None,
        description="Source whose rows are the decisions and hold the outcome; needs `column`. "
        "Left out: the label is made by `sql`.",
    )
    column: ColumnName | None = Field(
        default=None, description="Column of `source` that holds the outcome."
    )
    positive: Text | list[Text] | None = Field(
        default=None,
        description="Value of `column` (or list of its spellings) that counts as 1; every other "
        "value is 0, and an empty one is no outcome yet. Left out: it holds 0 and 1, or true and "
        "false.",
    )
    label_time: str = Field(
        default="label_timestamp",
        description="Column that says when the outcome was known, or an assumption such as `event "
        "+ 90d`.",
    )
    sql: str | None = Field(
        default=None,
        description="A .sql file under feature_repo/sql, or the query itself, that gives the "
        "columns <entity key>, event_timestamp, label_timestamp, label. Left out: `source` and "
        "`column` say it.",
    )
    lookback: Duration = Field(
        default=timedelta(days=60),
        description="How far before as_of the label sees rows; at least `delay` and the time from "
        "the first row that it needs to the outcome.",
    )
    delay: Duration = Field(
        description="How long after a decision its outcome is believed; must cover the latest "
        "arrival of an outcome, so that early outcomes are not overrepresented."
    )
    max_censored: Share = Field(
        default=0.05,
        description="Greatest share of mature decisions without an outcome; above it the "
        "evaluation holds.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Label:
        if (self.sql is None) == (self.source is None):
            raise ValueError("give either source and column, or sql")
        if self.source is not None and self.column is None:
            raise ValueError("a label from a source needs column")
        if self.sql is not None and self.positive is not None:
            raise ValueError("positive is for a column; SQL gives 0 and 1 itself")
        if self.positive is not None and not all(text.strip() for text in self.positives):
            raise ValueError("positive is empty; name the value that counts as 1")
        return self

    @property
    def positives(self) -> list[str]:
        """The values that count as 1; none where the column holds 0 and 1, or true and false."""
        return [self.positive] if isinstance(self.positive, str) else list(self.positive or [])

    @property
    def assumed_lag(self) -> timedelta | None:
        """The assumed delay of the outcome after the decision, or None where a column says it."""
        return lag_after_event(self.label_time)


class View(Strict):
    """One feature view: features that are made together, from SQL or from a source's columns."""

    grain: Literal["snapshot", "event"] = Field(
        default="snapshot",
        description="What a row stands for. snapshot: an entity at as_of. event: a row of the "
        "source, with its own times.",
    )
    source: Name | None = Field(
        default=None,
        description="Source from which the columns are taken as they are; for grain event. Left "
        "out: the view is made by `sql`.",
    )
    sql: str | None = Field(
        default=None,
        description="A .sql file under feature_repo/sql, or the query itself. Left out: `source` "
        "says it.",
    )
    lookback: Duration = Field(
        default=timedelta(days=90),
        description="How far before as_of the SQL sees events; at least the longest window in it.",
    )
    ttl: Duration = Field(
        default=timedelta(days=35),
        description="Age at which a row no longer counts, from the newest as_of at or before the "
        "decision: its features are then null in training, and stale at the node.",
    )
    visible: Literal["with_request", "at_as_of"] | None = Field(
        default=None,
        description="From when on a row of grain event is known. with_request: it is the "
        "decision's own, and the request brings it. at_as_of: from the as_of of the partition in "
        "which it arrived. Left out: with_request where the label is made of the view's source, "
        "else at_as_of.",
    )
    columns: dict[ColumnName, Literal["int64", "float64", "string", "bool"]] = Field(
        min_length=1, description="The features: the type of each column, by its name."
    )
    description: str = Field(
        default="", description="One sentence for people; shown in Feast's registry."
    )

    @model_validator(mode="after")
    def _one_way(self) -> View:
        if (self.sql is None) == (self.source is None):
            raise ValueError("give either source (columns taken as they are) or sql")
        if self.source is not None and self.grain != "event":
            raise ValueError(
                "a view straight from a source is of grain event; write sql for a snapshot"
            )
        if self.visible is not None and self.grain != "event":
            raise ValueError(
                "a snapshot is known from its as_of on; visible is for views of grain event, "
                "leave it out"
            )
        return self


class Split(Strict):
    """How the rows of a training are divided."""

    by: Literal["auto", "time", "hash"] = Field(
        default="auto",
        description="time: the newest decisions are evaluated. hash: a share of the entities, for "
        "data without a time. auto: hash where all decisions have one moment, else time.",
    )
    tune: Share = Field(
        default=0.2,
        description="Share of the rows by which the number of trees and the calibration are found.",
    )
    evaluation: Share = Field(
        default=0.2, description="Share of the rows on which a candidate is judged, never trained."
    )


class Training(Strict):
    """What is trained, on what."""

    exclude: list[ColumnName] = Field(
        default_factory=list,
        description="Features that are stored but not trained on: protected ones, and columns that "
        "were written after the outcome.",
    )
    known_at_decision: list[ColumnName] = Field(
        default_factory=list,
        description="Features of which you know that they are known at the decision: what the leak "
        "gate finds of their presence, ranges, pairs and weight is then a question in the report, "
        "no refusal.",
    )
    window: Duration | None = Field(
        default=None,
        description="How far before as_of decisions are used; shorten it where old ones no longer "
        "resemble new ones. Left out: all.",
    )
    embargo: Duration | None = Field(
        default=None,
        description="How long before the evaluation part decisions belong to no part, so that a "
        "model is as old when judged as when it serves. Left out: label.delay, but at most a tenth "
        "of their span.",
    )
    max_rows: int = Field(
        default=400_000,
        ge=100,
        description="Most rows of a training; of more a sample is drawn. Raise it where memory and "
        "time allow.",
    )
    split: Split = Field(
        default=Split(), description="How rows become train, tune and evaluation part."
    )
    rounds: int = Field(
        default=300, ge=1, description="Most trees of a model; fewer where more do not help."
    )
    early_stopping: int = Field(
        default=30,
        ge=1,
        description="Trees without a better result on the tune part after which fitting stops.",
    )
    params: dict[str, float | int | str | bool] = Field(
        default_factory=dict,
        description="LightGBM's own parameters, such as learning_rate or num_leaves, where its "
        "defaults do not do.",
    )
    seed: int = Field(
        default=7, description="Seed of all chance in training: splits, samples and LightGBM."
    )


class Gates(Strict):
    """What a candidate must reach; a missing number or NaN is a hold."""

    min_rows: int = Field(
        default=500,
        ge=1,
        description="Least rows of each class in the evaluation part; with fewer it holds.",
    )
    min_auc: float = Field(default=0.6, ge=0, le=1, description="Least AUC of a candidate.")
    max_calibration_error: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Greatest mean gap between score and outcome, above what chance gives on so "
        "many rows.",
    )
    over_baseline: float = Field(
        default=0.0,
        description="How far the candidate's AUC must be above that of a logistic regression on "
        "the same rows.",
    )
    margin: float = Field(
        default=0.01,
        ge=0,
        description="Loss of AUC against the model that serves (the opponent) that is tolerated.",
    )
    max_feature_auc: float = Field(
        default=0.98,
        ge=0.5,
        le=1,
        description="AUC above which a single feature is refused as a leak, before training.",
    )
    max_auc: float = Field(
        default=0.98,
        ge=0.5,
        le=1,
        description="AUC above which a model is held, since that is too good to be true.",
    )


class Fallback(Strict):
    """What the node does where it has no, or only stale, features."""

    unknown: Literal["refuse", "score"] = Field(
        default="refuse",
        description="An entity without features. refuse: 404. score: with every feature null, and "
        "the answer says so.",
    )
    stale: Literal["refuse", "score"] = Field(
        default="refuse",
        description="Features older than their ttl. refuse: 409. score: with those null, and the "
        "answer says so.",
    )


class Decision(Strict):
    """How a score becomes a decision."""

    threshold: float = Field(
        default=0.5, ge=0, le=1, description="Score (probability of class 1) that divides the two."
    )
    at_or_above: str = Field(
        default="accept", description="Decision of a score at or above the threshold."
    )
    below: str = Field(default="refer", description="Decision of a score below the threshold.")


class Monitoring(Strict):
    """Limits of the drift check."""

    psi: float = Field(
        default=0.2,
        gt=0,
        description="Population stability index (no unit) above which a feature has drifted; 0.1 "
        "is a small shift, 0.25 a great one.",
    )
    sample: int = Field(
        default=20_000,
        ge=100,
        description="Most rows of features that training keeps with a model, as the reference that "
        "later partitions are compared with.",
    )
    report_rows: int = Field(
        default=5_000,
        ge=100,
        description="Most rows of each side that the drift report draws; the verdict uses all.",
    )


class Wait(Strict):
    """How long a stage waits for partitions that are coming."""

    transit: Duration = Field(
        default=timedelta(minutes=10),
        description="How long after a stage has ended its successor may take to start; raise it "
        "where Airflow's queue is long.",
    )
    deadline: Duration = Field(
        default=timedelta(hours=6),
        description="How long a stage waits for earlier partitions, or tries again what it could "
        "not read, before a person is needed.",
    )


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
