"""The sources of a use case: where rows come from, their contract, and when they can be known."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from include.config.durations import Duration, lag_after_event
from include.config.names import COLUMN, ColumnName

Share = Annotated[float, Field(ge=0, le=1)]
ColumnType = Literal["int64", "float64", "string", "bool", "timestamp", "date"]
UNIX = {
    "unix_seconds": 1,
    "unix_milliseconds": 1_000,
    "unix_microseconds": 1_000_000,
    "unix_nanoseconds": 1_000_000_000,
}
"""What `dates` calls Unix times, and how many of each are in a second."""


def _as_texts(values: object, info: ValidationInfo) -> object:
    """Return the items of a list as the texts that a file holds.

    Raises:
        ValueError: YAML has lost how an item is written: it is a word such as yes, or a number
            whose digits may have changed.
    """
    if not isinstance(values, list):
        return values
    return [_as_text(value, info.data.get("type", "string")) for value in values]


def _as_text(value: object, kind: str) -> object:
    """Return an item of a list as text, as a file holds values of type `kind`."""
    if isinstance(value, bool):
        if kind == "bool":
            return str(value).lower()
        words = "yes, on or true" if value else "no, off or false"
        raise ValueError(
            f"an unquoted {words} is the truth value {str(value).lower()} in YAML; quote it, such "
            "as 'NO'"
        )
    if isinstance(value, float) and kind != "float64":
        raise ValueError(
            f"YAML reads {value!r} as a number, whose digits may be others than in the file; "
            "quote it"
        )
    if value is None:
        raise ValueError(
            "an unquoted null, ~ or nothing is no value in YAML; quote it, such as 'null'"
        )
    return str(value) if isinstance(value, int | float) else value


Texts = Annotated[
    list[str], BeforeValidator(_as_texts, json_schema_input_type=list[str | int | float | bool])
]


class Strict(BaseModel):
    """A part of a use case: frozen, and a field that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class History(Strict):
    """First and last partition key."""

    first: date = Field(description="Key of the first partition: the first day of its period.")
    last: date | None = Field(
        default=None,
        description="Key of the last partition, for data that end; nothing is scheduled then. Left "
        "out: the history goes on.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> History:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"last ({self.last}) is before first ({self.first})")
        return self


class Column(Strict):
    """The contract of one source column: a row that breaks it goes to quarantine."""

    type: ColumnType = Field(description="Type of its values; times are kept in UTC.")
    header: str | None = Field(
        default=None, description="Its name in the source. Left out: the same as here."
    )
    nullable: bool | None = Field(
        default=None,
        description="Whether a value may be missing. Left out: yes, but not where the column is "
        "the source's key or, of events, the entity's key; true for the entity's key leaves rows "
        "without an entity out of labels and views.",
    )
    min: int | float | None = Field(
        default=None, description="Least number that is allowed. Left out: any."
    )
    max: int | float | None = Field(
        default=None, description="Greatest number that is allowed. Left out: any."
    )
    values: Texts | None = Field(
        default=None,
        description="The allowed values, each read as a value of the column is. Left out: any.",
    )
    null_values: Texts | None = Field(
        default=None, description="Texts that mean no value here. Left out: those of the source."
    )
    decimal: Literal[".", ","] = Field(
        default=".", description="What stands before the decimals of a number."
    )
    thousands: Literal["", ",", ".", " ", "'"] = Field(
        default="", description="What groups the digits of a number."
    )
    percent: bool = Field(
        default=False, description="Whether every number ends in %; 5 % is then stored as 0.05."
    )
    unit: str | None = Field(
        default=None,
        max_length=12,
        pattern=r"^[^0-9\s.,+%'-]+$",
        description="What may stand before or after a number and is left out, such as $ or EUR. "
        "Left out: nothing.",
    )
    dates: str | None = Field(
        default=None,
        max_length=60,
        description="How dates and times are written, such as %d.%m.%Y or %Y%m%d (as strptime has "
        "it), or unix_seconds, unix_milliseconds, unix_microseconds, unix_nanoseconds. Left out: "
        "ISO.",
    )
    regex: str | None = Field(
        default=None,
        max_length=200,
        description="Regular expression (DuckDB's, RE2) that the whole text matches. Left out: "
        "any.",
    )
    description: str = Field(default="", description="What it is, for people who read the file.")

    @model_validator(mode="after")
    def _form_of_its_type(self) -> Column:
        """Refuse fields that mean nothing for the type of the column."""
        number = self.type in ("int64", "float64")
        for name, allowed in (
            ("decimal", number),
            ("thousands", number),
            ("unit", number),
            ("min", number),
            ("max", number),
        ):
            if getattr(self, name) != type(self).model_fields[name].default and not allowed:
                raise ValueError(
                    f"{name} is for columns of type int64 or float64, and this is {self.type}; "
                    "leave it out"
                )
        if self.percent and self.type != "float64":
            raise ValueError(
                f"percent is for type float64 (5 % is 0.05), and this is {self.type}; write type: "
                "float64"
            )
        if self.thousands == self.decimal:
            raise ValueError(
                f"{self.decimal!r} cannot group the digits and begin the decimals too; mend "
                "thousands or decimal"
            )
        if self.dates is not None and self.type not in ("date", "timestamp"):
            raise ValueError(
                f"dates is for columns of type date or timestamp, and this is {self.type}; mend "
                "one of the two"
            )
        if (
            self.dates is not None
            and self.dates not in UNIX
            and not re.search("%-?[yYGcx]", self.dates)
        ):
            raise ValueError(
                f"dates {self.dates!r} names no year; write a format such as %d.%m.%Y, or one of "
                f"{', '.join(UNIX)}"
            )
        return self


class SqlQuery(Strict):
    """A query that a database answers."""

    url_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] = Field(
        description="Environment variable that holds the SQLAlchemy URL, with its password."
    )
    query: str = Field(
        description="The SELECT that gives the rows, with every declared column and both times."
    )


class Simulated(Strict):
    """A stream of the embedded portfolio simulator."""

    stream: Literal["instalments", "contacts", "accounts"] = Field(
        description="Which table of the simulated portfolio."
    )
    customers: int = Field(default=20_000, ge=1, description="How many customers there are.")
    concept_shift: int | None = Field(
        default=None,
        ge=0,
        description="Day, counted from history.first, from which outcomes follow another rule. "
        "Left out: never.",
    )


class Source(Strict):
    """One source: where its rows are, what they must look like, and when they can be known."""

    kind: Literal["events", "static"] = Field(
        default="events",
        description="events: rows with a time of their own. static: a whole table that is "
        "replaced, such as a price list.",
    )
    path: str | None = Field(
        default=None,
        description="Files: a glob or an fsspec URI, relative to the YAML's folder. `{partition}` "
        "stands for the key, `{data_dir}` for EVERGREEN_DATA_DIR. Give one of path, sql, "
        "simulator.",
    )
    sql: SqlQuery | None = Field(default=None, description="A query that a database answers.")
    simulator: Simulated | None = Field(
        default=None, description="A stream of the simulated portfolio, to try things out."
    )
    format: Literal["auto", "csv", "parquet", "jsonl", "json", "xlsx", "arff", "feather"] = Field(
        default="auto",
        description="Format of the files; auto goes by their names. Each may be packed as .gz, "
        ".zst or .zip. json: an array of objects, or an object with one such array; jsonl: one "
        "object a line.",
    )
    sheet: str | None = Field(
        default=None,
        description="Excel: the sheet that is read. Left out: the first that is not hidden.",
    )
    member: str | None = Field(
        default=None,
        description="Zip archives: the file in them that is read. Left out: the only table.",
    )
    event_time: ColumnName = Field(
        default="event_timestamp", description="Events: column that says when a row happened."
    )
    arrival: str = Field(
        default="created_timestamp",
        description="Events: column that says when a row could first be known, or an assumption "
        "such as `event + 3d`.",
    )
    valid_from: date | None = Field(
        default=None,
        description="Static sources: day from which the first version counts as known. They need "
        "it.",
    )
    date_means: Literal["start_of_day", "end_of_day"] = Field(
        default="start_of_day",
        description="What a date without a time of day stands for, as event time, arrival or label "
        "time; end_of_day where rows are known only when the day is over.",
    )
    timezone: str = Field(
        default="UTC", description="Time zone of times that carry none, such as Europe/Berlin."
    )
    key: list[ColumnName] = Field(
        min_length=1,
        description="Columns that identify a record; a later row with the same values corrects it.",
    )
    columns: dict[ColumnName, Column] = Field(
        description="The contract of each column, by its name; the times need not be declared."
    )
    extra: Literal["refuse", "ignore"] = Field(
        default="refuse",
        description="Columns that are not declared. refuse: the partition blocks. ignore: they are "
        "left out.",
    )
    empty: Literal["block", "allow"] = Field(
        default="block",
        description="A partition without a row. block: it is an error. allow: that may happen.",
    )
    gaps: Literal["fail", "allow"] = Field(
        default="fail",
        description="An earlier partition that was never ingested. fail: what looks back on it is "
        "refused. allow: it is passed over.",
    )
    late: Literal["refuse", "next"] | None = Field(
        default=None,
        description="Rows that come after their partition was closed. next: the newest partition "
        "takes them. refuse: the run fails and names them. Left out: next where a column records "
        "the arrival, refuse where it is assumed.",
    )
    late_within: Duration | None = Field(
        default=None,
        description="How far back late rows are looked for. Left out: all files; 7 days of a "
        "database.",
    )
    spill: Duration | None = Field(
        default=None,
        description="How much later than its period the rows of a `{partition}` file may arrive. "
        "Left out: one period.",
    )
    fresh: Duration | None = Field(
        default=None,
        description="Greatest age at as_of of the newest row; an older one blocks the partition. "
        "Needs empty: block. Left out: any age.",
    )
    observed_within: Duration = Field(
        default=timedelta(hours=6),
        description="Static sources: how long after as_of a new version that is read still counts "
        "as known to that partition; later it counts from the next one.",
    )
    null_values: Texts = Field(
        default_factory=list, description="Texts that mean no value, in every column."
    )
    separator: str | None = Field(
        default=None,
        min_length=1,
        max_length=4,
        description="CSV: what stands between values; a blank means one or more. Left out: comma, "
        "semicolon, tab or |, whichever the header has.",
    )
    header: bool = Field(
        default=True,
        description="CSV, Excel: whether the first line names the columns; if not they are c1, c2, "
        "...",
    )
    skip: int = Field(
        default=0,
        ge=0,
        description="CSV, Excel: lines before the header (or the first row) that are left out.",
    )
    escape: Literal["double", "backslash"] = Field(
        default="double", description='CSV: a quote in quotes is "" or \\".'
    )
    encoding: str = Field(
        default="utf-8",
        description="CSV, JSON, ARFF: how the text is encoded, such as cp1252, latin-1 or utf-16.",
    )
    max_bad: Share = Field(
        default=0.01,
        description="Greatest share of rows that may break the contract; above it the partition "
        "blocks instead of setting them aside in quarantine.",
    )
    min_rows: int = Field(
        default=0, ge=0, description="Least rows of a partition; with fewer it blocks."
    )
    max_rows: int | None = Field(
        default=None,
        ge=1,
        description="Most rows of a partition; with more it blocks. Left out: any number.",
    )
    history: History | None = Field(
        default=None,
        description="Where this source begins later or ends earlier than the use case. Left out: "
        "as the use case.",
    )

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            "".encode(name)
        except (LookupError, ValueError):
            raise ValueError(
                f"{name!r} is no encoding; write one such as utf-8, cp1252, latin-1 or utf-16"
            ) from None
        return name

    @field_validator("separator")
    @classmethod
    def _separates(cls, separator: str | None) -> str | None:
        if separator is not None and (re.search(r"[\"\r\n\0]|[A-Za-z0-9]", separator)):
            raise ValueError(
                f"{separator!r} cannot stand between values; write one such as ',', ';', '|', ' ' "
                'or "\\t"'
            )
        return separator

    @model_validator(mode="after")
    def _whole(self) -> Source:
        """Refuse fields that contradict each other."""
        given = [name for name in ("path", "sql", "simulator") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of path, sql, simulator (given: {', '.join(given) or 'none'})"
            )
        if self.sheet is not None and self.format not in ("auto", "xlsx"):
            raise ValueError(
                f"sheet is for Excel workbooks, and format is {self.format}; leave sheet out, or "
                "write format: xlsx"
            )
        if self.path is None and (self.sheet is not None or self.member is not None):
            raise ValueError("sheet and member are for files; leave them out, or give a path")
        if self.kind == "static":
            if self.valid_from is None:
                raise ValueError(
                    "a static source needs valid_from: the day from which its first "
                    "version is known"
                )
        elif self.assumed_lag is None and not re.fullmatch(COLUMN, self.arrival):
            raise ValueError(f"arrival {self.arrival!r} is neither a column nor 'event + DURATION'")
        if self.fresh is not None and (self.kind == "static" or self.empty == "allow"):
            raise ValueError(
                "fresh is for events that must come: leave it out, or write kind: events and "
                "empty: block"
            )
        if self.kind == "events" and self.event_time == self.arrival:
            raise ValueError(
                f"event_time and arrival are one column, {self.arrival!r}; write arrival: event + "
                "0s"
            )
        missing = [
            name for name in self.key if name not in self.columns and name not in self.time_columns
        ]
        if missing:
            raise ValueError(
                f"key columns {missing} are not among the declared columns {list(self.columns)}"
            )
        return self

    @property
    def assumed_lag(self) -> timedelta | None:
        """The assumed delay of arrival after the event, or None where a column says it."""
        return lag_after_event(self.arrival)

    @property
    def takes_late(self) -> bool:
        """Whether late rows are taken; if not they are refused.

        Only who records arrivals expects them to be late.
        """
        return self.late == "next" if self.late is not None else self.assumed_lag is None

    @property
    def looks_back(self) -> timedelta | None:
        """How far back late rows are looked for; Left out: as far as the source goes."""
        return (
            self.late_within
            if self.late_within is not None or self.sql is None
            else timedelta(days=7)
        )

    @property
    def time_columns(self) -> list[str]:
        """The source's own columns that hold its event time and its arrival."""
        if self.kind == "static":
            return []
        return [self.event_time] + ([] if self.assumed_lag is not None else [self.arrival])
