"""The different texts of one column, and how many of them fit a contract, by the contract's rules.

A candidate is a `Column`. How many values fit it is counted by the expressions with which
validation will judge them, so what a draft promises is what a partition finds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from include.config.use_case_sources import Column, Source
from include.ingestion.values import typed
from include.lake.sql import text_literal
from include.validation.cell_rules import column_checks

if TYPE_CHECKING:
    import duckdb

FITS = 0.99  # a type is taken where this share of the values fits; the rest would go to quarantine
SOURCE = Source(path="-", key=["x"], arrival="event + 0s", columns={"x": Column(type="string")})
"""Stands for the source that a draft writes: no zone, no tokens of its own."""
MAX_TOKENS = 2  # texts that a draft may declare as no value; with more a person is asked
SAMPLE = 2_000  # different texts by which candidates are sorted out before all are counted
_FEW = 200  # different texts by which a type's shape is looked for

_TOKENS = [
    *["na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "null", "(null)"],
    *["[null]", "none", "nil", "nat", "?", "??", ".", "..", "-", "--", "---", "*", "\\n"],
    *["missing", "unknown", "empty", "void", "undefined", "tbd", "k.a.", "not available"],
    *["#value!", "#ref!", "#div/0!", "#num!", "#null!", "#name?", "00.00.0000"],
    *["00/00/0000", "00000000", "0000-00-00", "0000-00-00 00:00:00"],
]
"""Texts, in lower case, that programs and people write where there is no value."""
_TIME_NAME = re.compile(
    r"(^|[_ ])(date|time|day|dt|ts|at|on|timestamp|datetime|created|updated"
    r"|birth\w*|dob|epoch|unix|since|until|start|end|month)([_ ]|$)"
    r"|(date|time|timestamp|at)$",
    re.IGNORECASE,
)
"""Headers that sound of a time: a word of their own, or the end of one (`paidAt`)."""
_ID_NAME = re.compile(r"(^|_)(id|uuid|key|no|nr|number|code|zip|phone)$", re.IGNORECASE)
"""Headers whose digits are names of things, not numbers or dates."""


class ColumnTexts:
    """The table `seen` of one column: `t`, a trimmed text that is some value, and `n`, how often.

    `notes` go into the draft beside the column. `hints` say what a column may be that nothing fits;
    they become notes if it stays text.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, header: str) -> None:
        self._con, self.header = con, header
        self.notes, self.hints = list[str](), list[str]()
        self.filled = self.count("true")
        listed = ", ".join(text_literal(token) for token in _TOKENS)
        rows = self.rows(
            f"SELECT t, n FROM seen WHERE lower(t) IN ({listed}) ORDER BY n DESC, t LIMIT 20"
        )
        self.tokens = {str(token): int(count) for token, count in rows}
        self._misfits: dict[str, int] = {}  # by the candidates that were counted
        few = self.rows(f"SELECT t FROM seen ORDER BY hash(t) LIMIT {_FEW}")
        self._few = [str(row[0]) for row in few if row[0] not in self.tokens]

    @property
    def sounds_of_time(self) -> bool:
        """Whether the header sounds of a time."""
        return _TIME_NAME.search(self.header) is not None

    @property
    def sounds_of_id(self) -> bool:
        """Whether the header sounds of an id or a code."""
        return _ID_NAME.search(self.header) is not None

    @property
    def different(self) -> int:
        """How many different texts there are."""
        return int(self.rows("SELECT count(*) FROM seen")[0][0])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query over `seen`."""
        rows: list[tuple[Any, ...]] = self._con.execute(sql).fetchall()
        return rows

    def count(self, condition: str) -> int:
        """Return how many values meet a condition on `t`."""
        return self.counts([condition])[0]

    def counts(self, conditions: Sequence[str]) -> list[int]:
        """Return how many values meet each of some conditions, in one scan."""
        if not conditions:
            return []
        sums = ", ".join(f"coalesce(sum(n) FILTER ({condition}), 0)" for condition in conditions)
        (row,) = self._con.execute(f"SELECT {sums} FROM seen").fetchall()
        return [int(value) for value in row]

    def misfit(self, column: Column) -> str:
        """Return the condition of a text that the contract would send to quarantine."""
        none = column.null_values or []
        cell = f"CASE WHEN NOT {_is_one_of(none)} THEN t END" if none else "t"
        value = f"({typed(cell, column, SOURCE)})"
        checks = [check.bad for check in column_checks("x", column, SOURCE, cell, value)]
        # A check of a missing value is null, which is no failure.
        return (
            f"({' OR '.join(f'coalesce({check}, false)' for check in checks)})"
            if checks
            else "false"
        )

    def misfits(self, column: Column) -> int:
        """Return how many values the contract would send to quarantine."""
        key = column.model_dump_json()
        if key not in self._misfits:
            self._misfits[key] = self.count(self.misfit(column))
        return self._misfits[key]

    def examples(self, column: Column) -> tuple[str, ...]:
        """Return up to three of the texts that would go to quarantine, the most frequent first."""
        rows = self.rows(
            f"SELECT t FROM seen WHERE {self.misfit(column)} ORDER BY n DESC, t LIMIT 3"
        )
        return tuple(str(row[0]) for row in rows)

    def without_tokens(self, column: Column) -> Column | None:
        """Return the column with the tokens that keep its values from fitting, or None.

        None where that does not make it fit. More than two tokens are hinted at: nobody has seen
        what they mean.
        """
        misfit, misfits = self.misfit(column), self.misfits(column)
        if not misfits:
            return column
        tokens = [
            token for token in self.tokens if self.count(f"t = {text_literal(token)} AND {misfit}")
        ]
        if column.type in ("date", "timestamp"):
            tokens += self._far_dates(column, tokens)
        count = self.count(_is_one_of(tokens)) if tokens else 0
        rest, left = self.filled - count, misfits - count
        if not tokens or rest == 0 or left > (1 - FITS) * rest:
            return column if misfits <= (1 - FITS) * self.filled else None
        if len(tokens) > MAX_TOKENS:
            if misfits <= (1 - FITS) * self.filled:
                return column
            listed = ", ".join(map(shown, tokens[:6]))
            fields = ", ".join([f"type: {column.type}", *written(column)])
            self.hints.append(
                f"{column.type} but for {listed}: if these mean no value, write {fields}, "
                "null_values: [...]"
            )
            return None
        return column.model_copy(update={"null_values": tokens})

    def _far_dates(self, column: Column, tokens: Sequence[str]) -> list[str]:
        """Return dates outside the calendar, such as 9999-12-31, which people write for no end."""
        value = typed("t", column, SOURCE)
        rows = self.rows(
            f"SELECT t FROM seen WHERE ({value}) IS NOT NULL AND {self.misfit(column)} ORDER BY n "
            f"DESC, t LIMIT {MAX_TOKENS + 1}"
        )
        return [str(row[0]) for row in rows if row[0] not in tokens]

    def have_shape(self, shape: str) -> bool:
        """Tell cheaply whether half of a few texts match a regular expression, without case.

        Where they do not, nothing has to be counted.
        """
        matching = sum(re.fullmatch(shape, text, re.IGNORECASE) is not None for text in self._few)
        return 2 * matching >= max(1, len(self._few))

    def half_fitting(self, columns: Sequence[Column]) -> list[Column]:
        """Return the candidates that half of a sample of texts fits: the others cannot be it."""
        if not columns:
            return []
        values = f"WHERE NOT {_is_one_of([*self.tokens])}" if self.tokens else ""
        sums = ", ".join(f"count(*) FILTER (NOT {self.misfit(column)})" for column in columns)
        ((total, *fitting),) = self._con.execute(
            f"SELECT count(*), {sums} FROM (FROM seen {values} ORDER BY hash(t) LIMIT {SAMPLE})"
        ).fetchall()
        return [
            column
            for column, fits in zip(columns, fitting, strict=True)
            if total and fits >= 0.5 * total
        ]

    def fitting(self, columns: Sequence[Column]) -> list[Column]:
        """Return the candidates that nearly all texts fit, with or without tokens."""
        return [
            column
            for column in self.half_fitting(columns)
            if self.without_tokens(column) is not None
        ]


def written(column: Column) -> list[str]:
    """Return the fields of a guess, but for the type, as the draft writes them."""
    fields = []
    for name in ("decimal", "thousands", "percent", "unit", "dates", "null_values"):
        value = getattr(column, name)
        if value != type(column).model_fields[name].default:
            fields.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    return fields


def shown(text: str) -> str:
    """Return a foreign text as one line in quotes, safe in a comment."""
    return json.dumps(text[:40])


def _is_one_of(texts: Sequence[str]) -> str:
    return f"t IN ({', '.join(map(text_literal, texts))})"
