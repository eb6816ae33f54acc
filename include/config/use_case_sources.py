"""The sources of a use case: where rows come from, their contract, and when they can be known."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from include.config.date_forms import named_by
from include.config.durations import Duration, lag_after_event
from include.config.names import COLUMN, TIMES, ColumnName
from include.config.use_case_columns import UNIX, Column, ColumnType, Share, Strict, Texts
from include.config.use_case_origins import Simulated, SqlQuery

__all__ = ["UNIX", "Column", "ColumnType", "History", "Share", "Source", "Strict"]


_MOMENTS = ("date", "timestamp")


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
    snapshot: date | None = Field(
        default=None,
        description="Events without a time, such as a survey: the day for which the table stands. "
        "Every row happened and was known on it, at 00:00 UTC; in place of event_time and arrival. "
        "Left out: rows have times.",
    )
    date_means: Literal["start_of_day", "end_of_day"] = Field(
        default="start_of_day",
        description="What a date without a time of day stands for, as event time, arrival or label "
        "time; end_of_day where rows are known only when the day is over. What names a week, a "
        'month or a year (`dates: "%m/%Y"`) ends with its last day.',
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
        "refused. allow: it is passed over; what was made without it is stale once it is there.",
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
    quote: Literal['"', "'", "none"] = Field(
        default='"',
        description="CSV: the mark around values that hold a separator; none where values stand "
        "in no marks, and a quote is a letter.",
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

    @model_validator(mode="before")
    @classmethod
    def _times_of_a_snapshot(cls, data: Any) -> Any:
        """Set the times of a table without a time; refuse others beside its day."""
        if not isinstance(data, dict) or data.get("snapshot") is None:
            return data
        own = {"event_time": TIMES[0], "arrival": "event + 0s", "kind": "events"}
        for name in (*own, "valid_from"):
            if data.get(name) not in (None, own.get(name)):
                raise ValueError(
                    f"snapshot is for a table without a time, and {name} says one; leave one of "
                    "them out"
                )
        if TIMES[0] in (data.get("columns") or {}):
            raise ValueError(
                f"snapshot makes the column {TIMES[0]}, and one of that name is declared; leave "
                f"snapshot out, or name the column otherwise and say header: {TIMES[0]}"
            )
        return {**data, **own}

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
        self._check_made()
        for name, column in self.columns.items():
            if column.type == "timestamp" or name in self.time_columns:
                self.check_length(name)
        missing = [
            name for name in self.key if name not in self.columns and name not in self.time_columns
        ]
        if missing:
            raise ValueError(
                f"key columns {missing} are not among the declared columns {list(self.columns)}"
            )
        return self

    def _check_made(self) -> None:
        """Refuse columns that are made where the source has no place for them.

        Raises:
            ValueError: names the column.
        """
        digests = [name for name, column in self.columns.items() if column.digest is not None]
        if len(digests) > 1:
            raise ValueError(f"columns {digests} are one digest of one row; keep {digests[0]}")
        if digests and self.kind == "static":
            raise ValueError(
                f"{digests[0]}: the rows of a static source are replaced as a whole and need no "
                "digest; leave it out, or write kind: events"
            )
        for name in self.time_columns:
            column = self.columns.get(name)
            if column is not None and not column.is_delivered and column.type not in _MOMENTS:
                raise ValueError(
                    f"{name} is the source's time and computed as {column.type}; write type: date "
                    "or timestamp"
                )

    def check_length(self, name: str) -> None:
        """Refuse a column as a time that ends with its date, where nobody can tell with which.

        Raises:
            ValueError: names the column, its form, and the remedy.
        """
        column = self.columns.get(name)
        if self.date_means != "end_of_day" or column is None or named_by(column.dates) is not None:
            return
        raise ValueError(
            f"columns.{name}: dates {column.dates!r} does not tell how long what it names lasts, "
            "and date_means is end_of_day; write a form that names a day, a week, a month or a "
            "year, such as %d.%m.%Y, %G-W%V, %m/%Y or %Y, or compute the last day by sql"
        )

    @property
    def computed(self) -> dict[str, Column]:
        """The columns that are computed of each row, that of a snapshot's time among them."""
        columns = {name: column for name, column in self.columns.items() if column.sql is not None}
        if self.snapshot is not None:
            moment = f"TIMESTAMPTZ '{self.snapshot.isoformat()} 00:00:00+00'"
            columns[self.event_time] = Column(type="timestamp", sql=moment)
        return columns

    @property
    def row_digest(self) -> str | None:
        """The column that holds the digest of the delivered row, where there is one."""
        return next(
            (name for name, column in self.columns.items() if column.digest is not None), None
        )

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
