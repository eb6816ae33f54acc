"""A use case: one YAML file, typed, frozen, with every default in the model.

`use_case_file` reads it.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from include.config.durations import Duration, lag_after_event, period_start
from include.config.names import ColumnName, Name
from include.config.use_case_sources import History, Share, Source, Strict


def _as_text(value: object) -> object:
    """Take a number as it is written; YAML reads yes, no, true and false as something else, so
    they need quotes.
    """
    if isinstance(value, bool):
        raise ValueError("YAML reads this as a truth value; put it in quotes")
    return str(value) if isinstance(value, int) else value


Text = Annotated[str, BeforeValidator(_as_text)]


class Entity(Strict):
    """Whom a score is about; `key` is the column that names it in every source and view."""

    name: Name
    key: ColumnName
    type: Literal["int64", "string"] = "int64"


class Label(Strict):
    """The outcome: a source column, or SQL over the curated sources."""

    source: Name | None = None
    column: ColumnName | None = None
    positive: Text | list[Text] | None = Field(
        default=None,
        description="The value (or its spellings) that counts as 1; every other value is 0, none "
        "is no outcome yet.",
    )
    label_time: str = Field(
        default="label_timestamp",
        description="Column that says when the outcome was known, or `event + DURATION` (an "
        "assumption).",
    )
    sql: str | None = Field(
        default=None,
        description="A .sql file beside feature_repo/sql, or the query: <entity key>, "
        "event_timestamp, label_timestamp, label.",
    )
    lookback: Duration = timedelta(days=60)
    delay: Duration
    max_censored: Share = 0.05

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
    """One feature view: a snapshot an entity a partition, or one row a source row."""

    grain: Literal["snapshot", "event"] = "snapshot"
    source: Name | None = Field(
        default=None, description="Event grain without SQL: the columns are taken from this source."
    )
    sql: str | None = Field(
        default=None, description="A .sql file under feature_repo/sql, or the query itself."
    )
    lookback: Duration = timedelta(days=90)
    ttl: Duration = timedelta(days=35)
    visible: Literal["with_request", "at_as_of"] | None = Field(
        default=None,
        description="Event grain: the request brings the row, or it is known from the as_of of "
        "the partition in which it arrived. None: with_request where the label is made of the "
        "view's source, else at_as_of.",
    )
    columns: dict[ColumnName, Literal["int64", "float64", "string", "bool"]] = Field(min_length=1)
    description: str = ""

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
    """How mature rows become train, tune and evaluation."""

    by: Literal["auto", "time", "hash"] = "auto"
    tune: Share = 0.2
    evaluation: Share = 0.2


class Training(Strict):
    """What is trained, on what."""

    exclude: list[ColumnName] = Field(
        default_factory=list, description="Features kept but not trained on (protected ones)."
    )
    known_at_decision: list[ColumnName] = Field(
        default_factory=list,
        description="Features of which a person says that they are known at the decision: what "
        "the leak gate finds of their presence, ranges, pairs and weight is a "
        "question, no refusal.",
    )
    window: Duration | None = Field(
        default=None, description="Only decisions so long before as_of; None: all."
    )
    embargo: Duration | None = Field(
        default=None,
        description="Decisions so long before the evaluation part belong to no part; "
        "None: label.delay, but at most a tenth of their span.",
    )
    max_rows: int = Field(default=400_000, ge=100)
    split: Split = Split()
    rounds: int = Field(default=300, ge=1)
    early_stopping: int = Field(default=30, ge=1)
    params: dict[str, float | int | str | bool] = Field(
        default_factory=dict, description="LightGBM parameters."
    )
    seed: int = 7


class Gates(Strict):
    """What a candidate must reach; a missing number or NaN is a hold."""

    min_rows: int = Field(
        default=500, ge=1, description="Mature rows of each class, in the evaluation part."
    )
    min_auc: float = Field(default=0.6, ge=0, le=1)
    max_calibration_error: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Mean gap of score and outcome above what chance gives on so many rows.",
    )
    over_baseline: float = Field(
        default=0.0,
        description="The candidate's AUC less the logistic baseline's must be above it.",
    )
    margin: float = Field(
        default=0.01, ge=0, description="Loss of AUC against the opponent that is tolerated."
    )
    max_feature_auc: float = Field(
        default=0.98, ge=0.5, le=1, description="A single feature above it is a leak."
    )
    max_auc: float = Field(
        default=0.98, ge=0.5, le=1, description="A model above it is held: too good to be true."
    )


class Fallback(Strict):
    """What the node does where it has no, or only stale, features."""

    unknown: Literal["refuse", "score"] = "refuse"
    stale: Literal["refuse", "score"] = "refuse"


class Online(Strict):
    """Where the newest features can be asked for, beside the node's own rows."""

    feast: bool = Field(
        default=False,
        description="Write Feast's online table too, for clients of Feast, at about 40,000 values "
        "a CPU second; the node reads its own rows.",
    )


class Decision(Strict):
    """How a score becomes a decision."""

    threshold: float = Field(default=0.5, ge=0, le=1)
    at_or_above: str = "accept"
    below: str = "refer"


class Monitoring(Strict):
    """Limits of the drift check."""

    psi: float = Field(default=0.2, gt=0)
    sample: int = Field(
        default=20_000, ge=100, description="Rows of the reference kept with a model."
    )
    report_rows: int = Field(default=5_000, ge=100)


class Wait(Strict):
    """How long a stage waits for partitions that are coming."""

    transit: Duration = timedelta(minutes=10)
    deadline: Duration = timedelta(hours=6)


class UseCase(Strict):
    """One use case; see docs/how-to/own-data.md."""

    name: Name
    title: str = ""
    owner: str = "ml-engineering"
    cadence: Literal["day", "week", "month"] = "day"
    cut_off: Duration = timedelta(0)
    availability: Duration = timedelta(0)
    history: History
    entity: Entity
    sources: dict[Name, Source] = Field(min_length=1)
    label: Label
    features: dict[Name, View] = Field(min_length=1)
    training: Training = Training()
    gates: Gates = Gates()
    decision: Decision = Decision()
    fallback: Fallback = Fallback()
    online: Online = Online()
    monitoring: Monitoring = Monitoring()
    wait: Wait = Wait()
    folder: Path = Field(
        default=Path("."), exclude=True, description="Folder of the YAML; set by the loader."
    )

    @model_validator(mode="after")
    def _consistent(self) -> UseCase:
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
        seen: dict[str, str] = {}
        for view, spec in self.features.items():
            for column in spec.columns:
                if column in seen:
                    raise ValueError(
                        f"feature {column!r} stands in the views {seen[column]!r} and {view!r}; "
                        "rename one"
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
                seen[column] = view
        for where, names in (
            ("exclude", self.training.exclude),
            ("known_at_decision", self.training.known_at_decision),
        ):
            unknown = [name for name in names if name not in seen]
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
