"""The history of an entity in a draft: a snapshot view, where a table has several rows of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from include.onboarding.column_roles import Roles
from include.onboarding.feature_drafts import VALUES, draft_snapshot_view
from include.onboarding.header_words import sounds_late
from include.onboarding.profile import Table, text

ROWS_EACH = 2  # on average, from which an entity has a history to speak of


def history_lines(
    table: Table, roles: Roles, names: Mapping[str, str], cadence: str
) -> Iterator[str]:
    """Yield the view of what an entity's earlier rows say; nothing where they are too few.

    `names` has the YAML's name of each header. Only features are looked back on: the outcome of an
    earlier row, and what sounds written with it, would be seen before it was known.
    """
    first, last = table.moments(roles.event.header)
    if first == last or table.rows < ROWS_EACH * roles.entity.distinct:
        return
    known = [column for column in roles.features if not sounds_late(column.header)]
    plain = {header: name.strip('"') for header, name in names.items()}  # YAML may need quotes
    lines, _ = draft_snapshot_view(
        "rows",
        plain[roles.entity.header],
        {plain[column.header]: column.type for column in known},
        plain[roles.event.header],
        cadence,
        frequent={
            plain[column.header]: _frequent(table, column.header)
            for column in known
            if column.type == "string"
        },
        taken=list(plain.values()),
    )
    yield from lines


def _frequent(table: Table, header: str) -> list[str]:
    """Return the most frequent values of a column, of equally frequent ones the first by text."""
    values = table.scalar(
        "SELECT list(value ORDER BY count DESC, value) FROM (SELECT value, count(*) AS count FROM "
        f"(SELECT {text(header)} AS value FROM given) WHERE value IS NOT NULL GROUP BY value "
        f"ORDER BY count DESC, value LIMIT {VALUES})"
    )
    return [str(value) for value in values or []]
