"""Further tables beside the one that holds the outcome: joined by a column that values find.

A table of the same moments holds the decisions' own rows; one of other moments is known from the
partition in which it arrives; one without a time is static.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta

from include.config import durations
from include.errors import ConfigError
from include.ingestion.values import plain as plain_value
from include.lake.sql import quote
from include.onboarding.answers import Answers
from include.onboarding.column_roles import (
    Roles,
    why_later,
    written_later,
)
from include.onboarding.draft_times import Times, guess_ttl
from include.onboarding.draft_yaml import (
    column_lines,
    feature_line,
    left_out_line,
    max_bad_line,
    place_lines,
    sql_name,
)
from include.onboarding.evidence import Evidence, find_evidence
from include.onboarding.header_words import ARRIVAL, plain
from include.onboarding.no_features import why_no_feature
from include.onboarding.profile import Profile, Table, moment, text
from include.onboarding.time_roles import guess_event
from include.onboarding.worst_partition import Worst
from include.onboarding.yaml_text import column_names, name_of, note, plain_name

_LONGEST = timedelta(days=365)  # that a further table is looked back on
LEAST_MATCH = 0.5  # share of the values of one side that the other has
_DIFFERENT = 10  # values below which columns match by chance
MAX_VALUES = 200_000  # different values that are compared
# Names that many tables have for ids of their own rows: that two have one of them says nothing.
_OWN_ROWS = ("id", "key", "nr", "no", "number", "code", "name", "uuid", "guid", "index", "row_id")
_SAME_MOMENT = 0.95  # share of the rows that have their moment in the other table


@dataclass(frozen=True, slots=True)
class Match:
    """Two columns with values in common: the share of each side that the other has."""

    here: Profile
    there: Profile
    found_here: float
    found_there: float


@dataclass(frozen=True, slots=True)
class Joined:
    """A further table: its column of the entity, its times, and what its features are."""

    name: str
    path: str
    table: Table
    match: Match
    event: Profile | None
    arrival: Profile | None
    own_rows: bool
    features: tuple[Profile, ...]
    left_out: tuple[tuple[Profile, str], ...]
    written_later: tuple[Profile, ...]
    evidence: dict[str, Evidence]


def join_table(
    main: Table, roles: Roles, other: Table, path: str, taken: set[str], answers: Answers
) -> Joined:
    """Return what another table adds to the decisions of `main`; `taken` are names of sources.

    Raises:
        ConfigError: no column of it has the values of the entity.
    """
    match = best_match(main, [roles.entity], other)
    times = [c for c in other.columns if c.type in ("date", "timestamp")]
    event = None
    if times:
        event, _ = guess_event(other, times, (), None)
    arrival = next((c for c in times if c is not event and ARRIVAL.search(plain(c.header))), None)
    own_rows = event is not None and _same_moments(main, roles, other, match.there, event)
    keys = (match.there, event, arrival)
    left_out, features = [], []
    for column in other.columns:
        if any(column is key for key in keys):
            continue
        reason = why_no_feature(other, column, event)
        if reason:
            left_out.append((column, reason))
        else:
            features.append(column)
    evidence: dict[str, Evidence] = {}
    if roles.entity.unique and match.there.unique:
        labels = main.rows_of(
            f"SELECT {text(roles.entity.header)}, {text(roles.label.header)} FROM given"
        )
        label = other.add_joined("label", match.there.header, labels)
        evidence = find_evidence(other, features, label, roles.positive)
    later = written_later(other, features, evidence, answers, alone=False)
    for column in later:
        given = column.header in (answers.written_later or ())
        left_out.append((column, why_later(column, evidence.get(column.header), given)))
    features = [column for column in features if column not in later]
    name = base = name_of(other.path.name.split(".")[0])
    number = 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return Joined(
        name,
        path,
        other,
        match,
        event,
        arrival,
        own_rows,
        tuple(features),
        tuple(left_out),
        later,
        evidence,
    )


def best_match(main: Table, columns: Sequence[Profile], other: Table) -> Match:
    """Return the columns of two tables with the most values in common.

    A column of the same name comes first: small numbers of any kind are among the ids that count
    from 1.

    Raises:
        ConfigError: none has enough, or not the one of the same name.
    """
    best: Match | None = None
    namesake: Match | None = None
    for here in columns:
        # Those of the main table once, not once a column of the other.
        mine_by_reading: dict[bool, set[str]] = {}
        for there in other.columns:
            is_named = _names_the_same(here, there)
            if there.type not in ("int64", "string") or not there.distinct:
                continue
            if there.distinct < min(_DIFFERENT, here.distinct) and not is_named:
                continue
            as_texts = _are_texts(here, there)
            if as_texts not in mine_by_reading:
                mine_by_reading[as_texts] = _values(main, here, there)
            mine, theirs = mine_by_reading[as_texts], _values(other, there, here)
            common = len(mine & theirs)
            match = Match(here, there, common / max(1, len(mine)), common / max(1, len(theirs)))
            if best is None or _rank(match) > _rank(best):
                best = match
            if is_named and (namesake is None or _share(match) > _share(namesake)):
                namesake = match
    if best is not None and namesake is not None and _share(namesake) < LEAST_MATCH:
        raise ConfigError(_not_alike(main, other, namesake, best))
    if best is None or _share(best) < LEAST_MATCH:
        near = (
            f"; the nearest is {best.there.header!r}, which has {best.found_here:.1%} of them"
            if best
            else ""
        )
        raise ConfigError(
            f"{other.path}: no column holds the values of {columns[0].header!r} of "
            f"{main.path.name}{near}; name the entity with --entity"
        )
    return best


def _rank(match: Match) -> tuple[bool, float, bool]:
    is_named = _names_the_same(match.here, match.there) and _share(match) >= LEAST_MATCH
    same = match.here.header.lower() == match.there.header.lower()
    return is_named, round(match.found_here + match.found_there, 2), same


def _share(match: Match) -> float:
    return max(match.found_here, match.found_there)


def _names_the_same(here: Profile, there: Profile) -> bool:
    """Tell whether two columns have a name that says whose ids they hold."""
    name = _name_of(here)
    return name == _name_of(there) and name not in _OWN_ROWS


def _name_of(column: Profile) -> str:
    # Of other letters `plain` leaves nothing: each of two ids would be called `id`.
    return plain(column.header) if column.header.isascii() else column.header.lower()


def _not_alike(main: Table, other: Table, namesake: Match, best: Match) -> str:
    """Return why tables are not joined by another column than the one of the same name."""
    here, there = namesake.here.header, namesake.there.header
    mine = min(_values(main, namesake.here, namesake.there))
    theirs = min(_values(other, namesake.there, namesake.here))
    chance = ""
    if _share(best) >= LEAST_MATCH:
        chance = f", and {best.there.header!r} has more of them, perhaps by chance"
    return (
        f"{other.path}: its column {there!r} has {namesake.found_here:.1%} of the values of "
        f"{here!r} of {main.path.name} (such as {theirs[:40]!r}, and there {mine[:40]!r}){chance}; "
        "write the ids alike in both tables, or, if they are ids of something else, give "
        f"{there!r} another name"
    )


def _values(table: Table, column: Profile, other: Profile) -> set[str]:
    """Return different values of a column as they are read where `other` is the same id.

    Where one of them has texts both are texts: `1001.0` is 1001 as a number alone.
    """
    value, rows = text(column.header), "given"
    if _are_texts(column, other) and not column.made:
        value, rows = f"nullif({plain_value(quote(column.header))}, '')", "raw"
    found = table.rows_of(
        f"SELECT DISTINCT {value} AS v FROM {rows} WHERE v IS NOT NULL ORDER BY "
        f"hash(v) LIMIT {MAX_VALUES}"
    )
    return {str(row[0]) for row in found}


def _are_texts(one: Profile, other: Profile) -> bool:
    return "string" in (one.type, other.type)


def _same_moments(main: Table, roles: Roles, other: Table, key: Profile, event: Profile) -> bool:
    """Tell whether the other table has a row of each decision's entity and moment."""

    def pairs(table: Table, who: Profile, when: Profile) -> set[tuple[str, object]]:
        return {
            (str(row[0]), row[1])
            for row in table.rows_of(
                f"SELECT {text(who.header)}, epoch_us({moment(when.header)}) FROM given "
                f"ORDER BY hash({text(who.header)}) LIMIT {MAX_VALUES}"
            )
        }

    wanted = pairs(main, roles.entity, roles.event)
    return len(wanted & pairs(other, key, event)) >= _SAME_MOMENT * len(wanted)


def names_of(joined: Joined, key: str) -> dict[str, str]:
    """Return the names of its columns in the YAML; that of the entity is the same everywhere."""
    headers = [c.header for c in joined.table.columns if c is not joined.match.there]
    own = {c.header for c in (joined.event, joined.arrival) if c is not None}
    names = column_names([key, *headers], own & {"event_timestamp", "created_timestamp"}, key)
    return {joined.match.there.header: key, **{header: names[header] for header in headers}}


def source_lines(
    joined: Joined, key: str, kind: str, times: Times, worst: Worst | None
) -> Iterator[str]:
    """Yield the lines of the source of a further table; `kind` is the entity's type."""
    names, match, table = names_of(joined, key), joined.match, joined.table
    yield (
        f"  {plain_name(joined.name)}:  # guessed: {note(match.there.header)} has "
        f"{match.found_here:.1%} of the values of {note(match.here.header)}, which has "
        f"{match.found_there:.1%} of its values"
    )
    yield from place_lines(table, joined.path)
    record = [joined.match.there]
    if joined.event is None:
        yield "    kind: static  # guessed: no column says when a row happened"
        yield f"    valid_from: {times.first}  # assumed: known from the first day"
    else:
        yield f"    event_time: {plain_name(names[joined.event.header])}  # guessed"
        arrival = (
            "event + 0s  # assumed: each row was known at once"
            if joined.arrival is None
            else f"{plain_name(names[joined.arrival.header])}  # guessed"
        )
        yield f"    arrival: {arrival}"
        yield "    empty: allow  # a file that is given once has days without rows"
        if not match.there.unique:
            record.append(joined.event)
    listed = ", ".join(plain_name(names[column.header]) for column in record)
    yield f"    key: [{listed}]  # guessed: what names a row"
    if worst is not None:
        yield max_bad_line(worst)
    yield f"    columns:  # types guessed from all {table.rows} rows"
    yield from column_lines(table, names, {c.header for c in record}, [match.there], kind)


def _ttl(joined: Joined, roles: Roles, main: Table) -> timedelta:
    """Return how long a further table's rows count: also those from long before the decisions."""
    ttl = guess_ttl(main, roles)
    if joined.event is None:
        return ttl
    first = joined.table.moments(joined.event.header)[0]
    span = main.moments(roles.event.header)[1] - first
    return max(ttl, min(timedelta(days=span.days + 2), _LONGEST))


def first_day(joined: Sequence[Joined], first: date) -> date:
    """Return the day from which on history is loaded, so that decisions find earlier rows."""
    found = [
        each.table.moments(each.event.header)[0].astimezone(UTC).date()
        for each in joined
        if each.event is not None
    ]
    return min([first, *(max(day, first - _LONGEST) for day in found)])


def view_lines(
    joined: Joined, key: str, times: Times, roles: Roles, main: Table, taken: set[str]
) -> Iterator[str]:
    """Yield the view of a further table; features whose name is `taken` already are left out."""
    names = names_of(joined, key)
    features = [c for c in joined.features if names[c.header] not in taken]
    if not features:
        yield f"  # {joined.name}: no column is left that could be a feature"
        return
    yield f"  {plain_name(joined.name)}_features:"
    ttl = durations.format_duration(_ttl(joined, roles, main))
    if joined.event is None:
        listed = ", ".join(sql_name(names[c.header]) for c in (joined.match.there, *features))
        yield "    grain: snapshot"
        yield f"    sql: SELECT {listed} FROM {sql_name(joined.name)}"
    else:
        yield "    grain: event"
        yield f"    source: {plain_name(joined.name)}"
        yield (
            "    visible: with_request  # guessed: it has a row of each decision's moment"
            if joined.own_rows
            else "    visible: at_as_of  # guessed: its rows have other moments than the decisions"
        )
    yield f"    lookback: {ttl}  # guessed from the span: how far back a value may stand"
    yield f"    ttl: {ttl}"
    yield "    columns:"
    for column in features:
        yield feature_line(column, names[column.header], joined.evidence.get(column.header))
    for column, reason in joined.left_out:
        yield left_out_line(column, names[column.header], reason)
    for column in joined.features:
        if column not in features:
            yield f"      # {names[column.header]}: left out (another feature has the name)"
