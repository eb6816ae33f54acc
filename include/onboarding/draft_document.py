"""The whole YAML of a draft: questions first, then each part in the order of a use case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from include.onboarding import joins
from include.onboarding.answers import Answers
from include.onboarding.column_roles import Roles, count_decisions
from include.onboarding.date_parts import Expression
from include.onboarding.draft_times import Times
from include.onboarding.draft_yaml import (
    column_lines,
    entity_type,
    feature_lines,
    label_lines,
    last_lines,
    max_bad_line,
    names_in,
    one_of,
    place_lines,
    sql_name,
    time_lines,
)
from include.onboarding.drafted_history import differences, history_lines
from include.onboarding.horizon_lines import label_within_lines
from include.onboarding.joins import Joined
from include.onboarding.outcome_lines import outcome_label_lines, outcome_source_lines
from include.onboarding.outcome_tables import OutcomeTable
from include.onboarding.profile import Table
from include.onboarding.questions import Question
from include.onboarding.worst_partition import Worst
from include.onboarding.yaml_text import name_of, note, plain_name, quoted


def draft_lines(
    name: str,
    path: str,
    table: Table,
    roles: Roles,
    times: Times,
    answers: Answers,
    questions: Sequence[Question] = (),
    others: Sequence[Joined] = (),
    worst: Mapping[str, Worst] = MappingProxyType({}),
    apart: tuple[OutcomeTable, str] | None = None,
) -> Iterator[str]:
    """Yield the lines of the YAML over one table, which it calls `path`, and what joins it.

    `worst` has the sources whose `max_bad` has to be raised for their own tables to pass;
    `apart` is the table of outcomes with its path, where they stand apart.
    """
    names = names_in(table, roles)
    key = names[roles.entity.header]
    entity = plain_name(key)
    count, rate = count_decisions(table, roles)
    outcome = f"the outcome {note(one_of(roles))} of {note(roles.label.header)}"
    yield f"# Its rows make {count} decisions; {rate:.1%} of those with an outcome have {outcome}."
    if roles.snapshot:
        yield "# No time in the data: nothing here says how the model will do later."
    for question in questions:
        yield f"# ASK: {question.as_comment()}"
    yield f"name: {plain_name(name)}"
    yield f"cadence: {times.cadence}  # guessed from {times.why_cadence}"
    yield (
        f"history: {{first: {times.first}, last: {times.last}}}  # {times.why_last}; without "
        "`last` partitions go on with the clock"
    )
    entity_name = "row" if roles.entity.made else plain_name(name_of(roles.entity.header))
    yield (
        f"entity: {{name: {entity_name}, key: {entity}, type: {entity_type(roles.entity)}}}  "
        f"# {roles.why['entity']}"
    )
    yield "sources:"
    yield "  rows:"
    yield from place_lines(table, path)
    yield from time_lines(roles, names, answers, table.strays)
    record = (
        [roles.record]
        if roles.record
        else [roles.entity]
        if roles.entity.unique
        else [roles.entity, roles.event]
    )
    listed = ", ".join(plain_name(names[column.header]) for column in record)
    yield f"    key: [{listed}]  # {roles.why['key']}"
    yield "    empty: allow  # a file that is given once has days without rows"
    if "rows" in worst:
        yield max_bad_line(worst["rows"])
    yield f"    columns:  # types guessed from all {table.rows} rows"
    needed = {roles.entity.header, roles.event.header, *(column.header for column in record)}
    keys = [column for column in (roles.entity, roles.record) if column is not None]
    yield from column_lines(table, names, needed, keys, label=roles.label)
    days = differences(table, roles, names)
    for days_name, (header, sql) in days.items():
        yield (
            f"      {days_name}: {{type: float64, sql: {quoted(sql)}}}  # days from "
            f"{note(header)} to the decision"
        )
    if roles.entity.made:
        yield (
            f"      {entity}: {{type: string, digest: row}}  # the digest of the row without its "
            "outcome, and its copy number"
        )
    if isinstance(roles.event.made, Expression):
        sql = roles.event.made.over({header: sql_name(name) for header, name in names.items()})
        yield (
            f"      {plain_name(names[roles.event.header])}: {{type: {roles.event.made.kind}, sql: "
            f"{quoted(sql)}}}  # {roles.event.made.why}"
        )
    for each in others:
        yield from joins.source_lines(
            each, key, entity_type(roles.entity), times, worst.get(each.name)
        )
    yield from _outcome_lines(roles, names, answers, times, apart, worst)
    yield "features:"
    if roles.features or days:
        yield from feature_lines(
            table, roles, names, {name: header for name, (header, _) in days.items()}
        )
        if not roles.snapshot:
            yield from history_lines(table, roles, names, times.cadence)
    taken = {names[column.header] for column in roles.features}
    for each in others:
        yield from joins.view_lines(each, key, times, roles, table, taken)
        taken |= {joins.names_of(each, key)[column.header] for column in each.features}
    yield from last_lines(table, roles, times)


def _outcome_lines(
    roles: Roles,
    names: dict[str, str],
    answers: Answers,
    times: Times,
    apart: tuple[OutcomeTable, str] | None,
    worst: Mapping[str, Worst],
) -> Iterator[str]:
    """Yield the label, and before it the source of outcomes that stand apart."""
    if apart is None and times.horizon is not None:
        yield from label_within_lines(roles, names, times)
    elif apart is None:
        yield from label_lines(roles, names, answers, times.delay, times.why_delay)
    else:
        outcomes, outcomes_path = apart
        yield from outcome_source_lines(
            outcomes, outcomes_path, roles, names, times, worst.get(outcomes.name)
        )
        yield from outcome_label_lines(outcomes, roles, names, answers, times)
