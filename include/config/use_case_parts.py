"""What a use case says of its decisions: whom they are about, their outcome, their features."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from include.config.durations import Duration, lag_after_event
from include.config.names import ColumnName, Name
from include.config.use_case_sources import Share, Strict


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
    pii: list[ColumnName] | None = Field(
        default=None,
        exclude=True,  # as a column's: it changes nothing that is computed
        description="Features whose values tell who somebody is; the prediction log is written "
        "without them. Left out: those of the names of such columns, and all of a view whose SQL "
        "reads one. An empty list: none.",
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
        if unknown := [name for name in self.pii or () if name not in self.columns]:
            raise ValueError(f"pii names {unknown}, which are no columns of the view")
        if self.visible is not None and self.grain != "event":
            raise ValueError(
                "a snapshot is known from its as_of on; visible is for views of grain event, "
                "leave it out"
            )
        return self
