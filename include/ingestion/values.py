"""DuckDB expressions that turn a column's text into its typed value: one rule for every reader.

Contract, arrival and draft ask here and nowhere else, so what a draft says of a table is what the
contract does with it. Every text, keys among them, is read as `include.texts` says: in NFC, without
letters that nobody sees, trimmed of blanks, tabs, line breaks and no-break spaces at both ends.
What is then empty, or one of the column's (else the source's) `null_values`, is no value, in every
format. Raw rows stay as they were delivered.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from include.config.use_case_sources import Column, Source
from include.ingestion.times import date, utc
from include.lake.sql import quote, text_literal
from include.texts import BLANKS, HIDDEN, plain_text

# By byte of UTF-8: whether a text that begins, or ends, with it may have to be trimmed.
_BEGINS, _ENDS = np.zeros(256, bool), np.zeros(256, bool)
_BEGINS[[blank.encode()[0] for blank in BLANKS]] = True
_ENDS[[blank.encode()[-1] for blank in BLANKS]] = True
# Letters before U+0300, the first mark that joins another letter, are in NFC, and begin with a
# lesser byte than it. One of them is hidden.
_MARKS, _SOFT_HYPHEN = "\u0300".encode()[0], "\u00ad".encode()
_TRUE, _FALSE = "'true', 't', 'yes', 'y', '1'", "'false', 'f', 'no', 'n', '0'"
# What may separate groups of three digits, as a regular expression. A blank stands for the
# no-break, figure and narrow blanks of spreadsheets too, an apostrophe for the typesetters' one.
_GROUPS = {"": "", ",": ",", ".": "[.]", " ": "[ \u00a0\u2007\u202f]", "'": "['\u2019]"}


def cell(name: str, source: Source, *, bare: bool = False) -> str:
    """Return the expression of a raw column's text: trimmed, NULL where it means no value.

    `bare` says that all its texts are (`are_bare`): what needs no trimming is not trimmed.
    """
    return trimmed_text(quote(name), source.columns.get(name), source, bare=bare)


def plain(text: str) -> str:
    """Return the expression of a text as `plain_text` reads it."""
    # Trimming by a set of characters costs ten times as much as trimming blanks, and composing
    # letters as much again, so both are kept for the texts that may need them.
    may_join = "[\\x{00AD}\\x{0300}-\\x{10FFFF}]"
    shown = text
    for letter in HIDDEN:
        shown = f"replace({shown}, '{letter}', '')"
    rare = " OR ".join(f"contains({text}, '{blank}')" for blank in BLANKS[1:])
    return (
        f"(CASE WHEN strlen({text}) <> length({text}) AND regexp_matches({text}, '{may_join}') "
        f"THEN trim(nfc_normalize({shown}), '{BLANKS}') "
        f"WHEN {rare} THEN trim({text}, '{BLANKS}') ELSE trim({text}) END)"
    )


def trimmed_text(text: str, column: Column | None, source: Source, *, bare: bool = False) -> str:
    """Return the expression of a raw text expression: trimmed, NULL where it means no value."""
    trimmed = plain(text)
    none = (
        source.null_values if column is None or column.null_values is None else column.null_values
    )
    if bare:
        trimmed = text
    if not none:
        return trimmed if bare else f"nullif({trimmed}, '')"
    listed = ", ".join(text_literal(plain_text(token)) for token in ["", *none])
    return f"CASE WHEN {trimmed} NOT IN ({listed}) THEN {trimmed} END"


def are_bare(texts: pa.StringArray) -> bool:
    """Tell whether every text is as it is read: not empty, nothing to trim, join or leave out.

    To look at the first and the last byte of each, and for the greatest of all, takes a tenth of
    what trimming takes. They tell more than asked: other letters than the no-break space begin or
    end with one of its two bytes, and most letters beyond U+0300 join no other.
    """
    _, offsets, data = texts.buffers()
    if data is None or texts.null_count:
        return False
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    if (ends[1:] == ends[:-1]).any():
        return False
    content = np.frombuffer(data, np.uint8)
    if _BEGINS[content[ends[:-1]]].any() or _ENDS[content[ends[1:] - 1]].any():
        return False
    used = content[ends[0] : ends[-1]]
    greatest = used.max(initial=0)
    return bool(greatest < 128 or (greatest < _MARKS and _SOFT_HYPHEN not in used.tobytes()))


def typed(text: str, column: Column, source: Source) -> str:
    """Return the expression of a cell's value as the column's type, NULL where the text is none."""
    if column.type == "string":
        return text
    if column.type == "int64":
        digits = _plain(text, column)
        number = f"try_cast({digits} AS BIGINT)"
        # The cast alone takes `1_000`, `1e3` and `12.7`; what comes out of it as it went in is of
        # no such form. That is nearly every number, and asked in half the time of the pattern.
        # `12.0` is a whole number, and is split rather than cast: a double has 53 bits.
        return (
            f"CASE WHEN CAST({number} AS VARCHAR) = {digits} THEN {number} "
            f"WHEN regexp_full_match({digits}, '[+-]?[0-9]+([.]0*)?') "
            f"THEN try_cast(split_part({digits}, '.', 1) AS BIGINT) END"
        )
    if column.type == "float64":
        number = f"try_cast({_plain(text, column)} AS DOUBLE)" + (
            " / 100" if column.percent else ""
        )
        # DuckDB's cast takes `1_000`, which nobody writes as a number; + 0.0 makes -0.0 to 0.0.
        return f"CASE WHEN NOT contains({text}, '_') THEN {number} + 0.0::DOUBLE END"
    if column.type == "bool":
        return (
            f"CASE WHEN lower({text}) IN ({_TRUE}) THEN true WHEN lower({text}) IN ({_FALSE}) "
            "THEN false END"
        )
    if column.type == "date":
        return date(text, column.dates)
    return utc(text, source, column.dates)


def moment(name: str, source: Source) -> str:
    """Return the expression of a raw column's time in UTC, whatever its declared type is."""
    return utc(cell(name, source), source, dates_of(name, source))


def dates_of(name: str, source: Source) -> str | None:
    """Return the form in which a column's times are written; None for ISO."""
    return source.columns[name].dates if name in source.columns else None


def _plain(text: str, column: Column) -> str:
    """Return the expression of a number's text as a cast reads it.

    It is NULL where the text is not of the form that the column declares: decimal mark, groups of
    thousands, percent sign and unit.
    """
    if (column.decimal, column.thousands, column.percent, column.unit) == (".", "", False, None):
        return text
    group, point = _GROUPS[column.thousands], "," if column.decimal == "," else "[.]"
    # No group begins with 0: what stands before the mark in 0,123 says that it is the decimal one.
    digits = f"([1-9][0-9]{{0,2}}({group}[0-9]{{3}})+|[0-9]+)" if group else "[0-9]+"
    unit = re.escape(column.unit) if column.unit else ""
    before, after = (
        (f"({unit}[ \u00a0\u202f]?)?", f"([ \u00a0\u202f]?{unit})?") if unit else ("", "")
    )
    percent = "[ \u00a0\u202f]?%" if column.percent else ""
    number = f"({digits}({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?"
    form = f"[+-]?{before}[+-]?{number}{percent}{after}"
    dropped = "|".join(part for part in (unit, group, "[% \u00a0\u202f]") if part)
    minus = f"replace({text}, '\u2212', '-')"  # the minus sign of typesetters
    bare = f"regexp_replace({minus}, {text_literal(dropped)}, '', 'g')"
    return (
        f"CASE WHEN regexp_full_match({minus}, {text_literal(form)}) THEN replace({bare}, ',', "
        "'.') END"
    )
