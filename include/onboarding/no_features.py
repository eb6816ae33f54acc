"""Why a column of a table can be no feature: a time, a name, free text, an object, a constant."""

from __future__ import annotations

from include.onboarding.header_words import sounds_of_id, sounds_of_person
from include.onboarding.profile import Profile, Table, moment, text
from include.training.free_text import hardly_repeats

# About the share of the rows that a model is fitted on: on fewer rows a text repeats less often.
LEARNT = 0.5


def why_no_feature(table: Table, column: Profile, event: Profile | None) -> str:
    """Return why a column can be no feature; empty where it can."""
    if column.type in ("date", "timestamp"):
        return "a time; make a number of it by SQL if it should be a feature"
    if column.distinct == 0:
        return "empty"
    if column.distinct == 1 and column.nulls == 0:
        return "constant"
    if column.type == "string" and _is_nested(table, column):
        # A column of the YAML is called by its header in letters of our own.
        return (
            "an object of JSON; one of its values is a feature as a computed column, such as sql: "
            f"json_extract_string(column, '$.{_first_key(table, column)}')"
        )
    if column.type == "string" and hardly_repeats(*_first_rows(table, column, event)):
        return "different on most rows, as names and free text are"
    if sounds_of_id(column.header) and (column.unique or sounds_of_person(column.header)):
        return "an id"
    return ""


def _is_nested(table: Table, column: Profile) -> bool:
    """Tell whether every value of a column is an object of JSON."""
    value = text(column.header)
    return not table.scalar(
        f"SELECT count(*) FROM given WHERE {value} IS NOT NULL AND NOT (left({value}, 1) = '{{' "
        f"AND json_valid({value}))"
    )


def _first_key(table: Table, column: Profile) -> str:
    """Return the first name in the objects of a column."""
    value = text(column.header)
    name = table.scalar(
        f"SELECT json_keys({value})[1] FROM given WHERE json_keys({value})[1] IS NOT NULL LIMIT 1"
    )
    return "name" if name is None else str(name)[:30]


def _first_rows(table: Table, column: Profile, event: Profile | None) -> tuple[int, int]:
    """Return how many values, and different ones, a model would be fitted on."""
    value = text(column.header)
    order = moment(event.header) if event is not None else "rowid"
    rows = f"SELECT {value} AS v FROM given ORDER BY {order} LIMIT {int(LEARNT * table.rows)}"
    return int(table.scalar(f"SELECT count(v) FROM ({rows})")), int(
        table.scalar(f"SELECT count(DISTINCT v) FROM ({rows})")
    )
