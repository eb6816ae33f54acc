"""The columns of a source: their contract, and how their values are written or made."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

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


# The fields of a column that say how its values stand in the source.
_WRITTEN = ("header", "null_values", "decimal", "thousands", "percent", "unit", "dates")


class Strict(BaseModel):
    """A part of a use case: frozen, and a field that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Strict):
    """The contract of one source column: a row that breaks it goes to quarantine."""

    type: ColumnType = Field(description="Type of its values; times are kept in UTC.")
    header: str | None = Field(
        default=None, description="Its name in the source. Left out: the same as here."
    )
    sql: str | None = Field(
        default=None,
        min_length=1,
        max_length=20_000,
        description="The column is computed: one SQL expression over the delivered columns of its "
        "row, typed as declared, such as `amount / income`. Where it gives nothing or fails there "
        "is no value. Left out: it is delivered.",
    )
    digest: Literal["row"] | None = Field(
        default=None,
        description="row: the column is made as an id of rows that have none: the digest of the "
        "delivered row without the outcome, and the number of its copy. Left out: it is delivered.",
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
    # Not part of a dump: whom a value identifies changes nothing that is computed from it.
    pii: Literal["value", "entity"] | None = Field(
        default=None,
        exclude=True,
        description="Whether its values tell who somebody is. value: features of this name are cut "
        "out of the prediction log. entity, for the entity's key: the log keeps a keyed hash of "
        "it. Left out: neither.",
    )
    description: str = Field(default="", description="What it is, for people who read the file.")

    @property
    def is_delivered(self) -> bool:
        """Whether the source holds the column; otherwise it is made of those that it holds."""
        return self.sql is None and self.digest is None

    @model_validator(mode="after")
    def _form_of_what_is_made(self) -> Column:
        """Refuse fields that say how a value is written where nobody writes it."""
        if self.is_delivered:
            return self
        made = "sql" if self.sql is not None else "digest"
        if self.sql is not None and self.digest is not None:
            raise ValueError("sql and digest make the column in two ways; leave one out")
        for name in _WRITTEN:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} says how a delivered value is written, and {made} makes this one; "
                    f"leave {name} out"
                )
        if self.digest is not None and self.type != "string":
            raise ValueError(f"a digest is text, and this is {self.type}; write type: string")
        return self

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
        if self.dates is not None and re.search("%-?Z", self.dates):
            raise ValueError(
                f"dates {self.dates!r} reads names of zones, of which CST or IST mean several and "
                "CET has an hour that comes twice; let the source write offsets (%z). Where all "
                "times are of one zone, write its name in place of %Z, and timezone: "
                "Europe/Berlin in the source (none where it is UTC or GMT)"
            )
        if self.unit is not None and self.unit.lower() == "e":
            raise ValueError(
                f"unit {self.unit!r} cannot be told from the exponent of 5e3; let the source leave "
                "it out, or take the number by sql"
            )
        return self
