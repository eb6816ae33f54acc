"""What a draft makes of other columns: an entity's history as a view, dates as days.

The history is drafted where a table has several rows of an entity. A date that was known at the
decision becomes the days from it to the decision, as a computed column of the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from include.onboarding.column_roles import Roles
from include.onboarding.feature_drafts import VALUES, draft_differences, draft_snapshot_view
from include.onboarding.header_words import OUTCOME_TIME, plain, sounds_late
from include.onboarding.profile import Table, moment, text

_AFTER = 0.01  # share of dates after the decision from which a column was not known at it
ROWS_EACH = 2  # on average, from which an entity has a history to speak of


def differences(table: Table, roles: Roles, names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the days from each date that was known at the decision to it: header, SQL, by name.

    Nothing where the decision's moment is no delivered column, which a computed one could read.
    """
    if roles.event.made:
        return {}
    at = moment(roles.event.header)
    roles_of_time = (roles.event, roles.arrival, roles.outcome, roles.label, *roles.written_later)
    dates = {}
    for column in table.columns:
        name = plain(column.header)
        if (
            column.type not in ("date", "timestamp")
            or any(column is other for other in roles_of_time)
            or column.distinct < 2
            or OUTCOME_TIME.search(name)
            or sounds_late(column.header)
        ):
            continue
        known = moment(column.header)
        after = table.scalar(f"SELECT avg(({known} > {at})::INT) FROM given")
        if after is not None and after <= _AFTER:
            dates[names[column.header].strip('"')] = column
    drafted = draft_differences(
        {name: column.type for name, column in dates.items()},
        names[roles.event.header].strip('"'),
        taken=[name.strip('"') for name in names.values()],
    )
    return {
        name: (column.header, sql)
        for (name, (_, sql)), column in zip(drafted.items(), dates.values(), strict=True)
    }


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
