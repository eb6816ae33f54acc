"""Guess the contract of a column from its texts: the type, and the written form of its values.

What cannot be told apart (day from month, thousands from decimals) is not guessed: the column stays
text, and a note says what to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.config.use_case_sources import Column, ColumnType
from include.onboarding.column_texts import FITS, MAX_TOKENS, ColumnTexts, shown
from include.onboarding.date_formats import as_digits, date_formats
from include.onboarding.number_formats import far_tokens, low_codes, note_thousands, number_formats

if TYPE_CHECKING:
    import duckdb

_NO_WORDS = ["null", "(null)", "[null]", "\\n", "#n/a", "<na>", "n/a", "nan", "?", "#na"]
"""Tokens that are no word of any language, and so no value of a text column either."""
_SHAPES: dict[ColumnType, str] = {
    "int64": r"[+-]?[0-9]+([.]0*)?",
    "bool": "true|t|yes|y|1|false|f|no|n|0",
    "float64": r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?",
    "date": "[0-9]{4}-[0-9]{2}-[0-9]{2}.*",
    "timestamp": "[0-9]{4}-[0-9]{2}-[0-9]{2}.*",
}
"""Regular expressions of values as the contract reads them undeclared; of equals the first wins."""
_MOSTLY = 0.7  # share of numbers from which a column of texts may be one of numbers
_ZERO_FIRST = "regexp_full_match(t, '[+-]?0[0-9]+')"
# Whole numbers that no int64 holds, and of which a float would keep only the first digits.
_TOO_LONG = "regexp_full_match(t, '[+-]?[0-9]{16,}') AND try_cast(t AS BIGINT) IS NULL"


@dataclass(frozen=True, slots=True)
class Guess:
    """What a column was taken for, the values that do not fit, and what a person should know.

    `codes` are numbers that may mean no value: nobody but a person can tell.
    """

    column: Column
    misfits: int
    examples: tuple[str, ...]
    notes: tuple[str, ...]
    codes: tuple[str, ...] = ()


def guess_column(con: duckdb.DuckDBPyConnection, header: str) -> Guess:
    """Return the guess for the table `seen` (t: trimmed text, n: how often), without null texts."""
    texts = ColumnTexts(con, header)
    column = _undeclared(texts)
    if column is None or texts.misfits(column):
        candidates = [column] if column else []
        candidates += [*number_formats(texts), *date_formats(texts)]
        column = _best(texts, candidates, column)
    elif column.type == "int64":
        column = as_digits(texts, column)
    if column is None:
        column = _as_text(texts)
    elif column == Column(type="float64"):
        note_thousands(texts)
    if column.type in ("int64", "float64") and (far := far_tokens(texts, column)):
        column = column.model_copy(update={"null_values": list(far)})
        texts.notes.append("far below all other numbers, and so taken for no value")
    codes = low_codes(texts, column)
    misfits = texts.misfits(column)
    examples = texts.examples(column) if misfits else ()
    return Guess(column, misfits, examples, tuple(dict.fromkeys(texts.notes)), codes)


def _undeclared(texts: ColumnTexts) -> Column | None:
    """Return the type that most values fit as they are, if enough do."""
    if not texts.filled:
        return None
    columns = [Column(type=kind) for kind, shape in _SHAPES.items() if texts.have_shape(shape)]
    if not columns:
        return None
    zeros, long = texts.counts([_ZERO_FIRST, _TOO_LONG])
    # Codes: as numbers they would lose their zeros.
    if zeros > (1 - FITS) * texts.filled or (zeros and texts.sounds_of_id):
        columns = [column for column in columns if column.type in ("bool", "date", "timestamp")]
    elif long:
        columns = [column for column in columns if column.type != "float64"]
    return _best(texts, columns, None)


def _best(texts: ColumnTexts, columns: Sequence[Column], judged: Column | None) -> Column | None:
    """Return the candidate with the fewest misfits, the earlier of equals.

    `judged` is one whose tokens were looked for before.
    """
    by_misfits: list[tuple[int, Column]] = []
    for column in columns:
        mended = column if column is judged else texts.without_tokens(column)
        if mended is not None:
            by_misfits.append((texts.misfits(mended), mended))
            if not by_misfits[-1][0]:
                return mended
    return min(by_misfits, key=lambda pair: pair[0])[1] if by_misfits else None


def _note_numbers(texts: ColumnTexts) -> None:
    """Note that most values of a column are numbers: what the others mean, a person knows."""
    if texts.sounds_of_id or not texts.have_shape(_SHAPES["float64"]):
        return
    column = Column(type="float64", null_values=[*texts.tokens] or None)
    values = texts.filled - sum(texts.tokens.values())
    numbers = values - texts.misfits(column)
    if not values or numbers < _MOSTLY * values or texts.count(_ZERO_FIRST):
        return
    others = ", ".join(map(shown, texts.examples(column)))
    if others:
        texts.notes.append(
            f"{numbers / values:.0%} of its values are numbers, others are such as {others}: if "
            "they mean no value, write type: float64, null_values: [...]; if they are numbers, "
            "make one by sql"
        )


def _as_text(texts: ColumnTexts) -> Column:
    """Return a text column.

    Tokens that no language has a word for mean no value; others are noted, for they may be values.
    """
    if not texts.hints:
        _note_numbers(texts)
    texts.notes += texts.hints
    tokens = [token for token in texts.tokens if token.lower() in _NO_WORDS]
    words = [token for token in texts.tokens if token not in tokens]
    if len(tokens) > MAX_TOKENS or texts.hints:
        words, tokens = [*tokens, *words], []
    if words and not texts.hints and texts.filled > sum(texts.tokens.values()):
        counted = ", ".join(f"{shown(token)} ({texts.tokens[token]})" for token in words[:4])
        texts.notes.append(
            f"holds {counted} as values; if that means none, write null_values: [...]"
        )
    return Column(type="string", null_values=tokens or None)
