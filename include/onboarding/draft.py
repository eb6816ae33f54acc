"""Draft a use case from one table: each guess says so, and the draft passes `usecase check`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from include.clock import utc_now
from include.config import durations, use_case_file
from include.errors import ConfigError, SourceError
from include.onboarding.answers import NOTHING, Answers
from include.onboarding.column_roles import Roles, count_decisions, guess_roles
from include.onboarding.draft_document import draft_lines
from include.onboarding.draft_times import guess_times
from include.onboarding.joins import Joined, first_day, join_table
from include.onboarding.outcome_tables import OutcomeTable, joined_outcome, named_apart
from include.onboarding.overview import ColumnView, view_columns, view_joined
from include.onboarding.profile import Table
from include.onboarding.questions import Question, open_questions
from include.onboarding.redraft import with_mark
from include.onboarding.stray_times import leave_out_strays
from include.onboarding.worst_partition import Worst
from include.onboarding.yaml_text import name_of, note


@dataclass(frozen=True, slots=True)
class Draft:
    """A use case that was drafted, and what it was made of."""

    name: str
    text: str
    table: Table
    roles: Roles
    answers: Answers
    questions: tuple[Question, ...]
    joined: tuple[Joined, ...] = ()
    apart: OutcomeTable | None = None

    @property
    def decisions(self) -> tuple[int, float]:
        """How many decisions the rows make, and the share of 1 among those with an outcome."""
        return count_decisions(self.table, self.roles)

    @property
    def all_joined(self) -> list[OutcomeTable | Joined]:
        """The further tables: that of the outcomes first, where they stand apart."""
        return [*([] if self.apart is None else [self.apart]), *self.joined]

    def as_json(self) -> dict[str, object]:
        """Return what was decided, for programs."""
        return {
            "name": self.name,
            "table": str(self.table.path),
            "rows": self.table.rows,
            "broken_lines": self.table.broken,
            "decisions": self.decisions[0],
            "label_rate": self.decisions[1],
            "columns": [view.as_json() for view in self.views],
            "joined": [
                {
                    "name": each.name,
                    "table": str(each.table.path),
                    "column": each.match.there.header,
                    "values_found": each.match.found_there,
                    "values_it_has": each.match.found_here,
                }
                for each in self.all_joined
            ],
            "questions": [asdict(question) for question in self.questions],
        }

    @property
    def views(self) -> list[ColumnView]:
        """What became of each column, those of a role first, joined tables last."""
        views = view_columns(self.table, self.roles)
        for each in self.joined:
            views += view_joined(each)
        return views


def draft(
    path: Path,
    *,
    given_path: str | None = None,
    name: str | None = None,
    key: str | None = None,
    time: str | None = None,
    label: str | None = None,
    positive: tuple[str, ...] | None = None,
) -> tuple[str, str]:
    """Return name and YAML of a use case over the table in `path`.

    `key`, `time` and `label` are headers that a person knows, `positive` values of the label.

    Raises:
        SourceError: the file is no readable table.
        ConfigError: as `draft_table`.
    """
    answers = Answers(key=key, time=time, label=label, positive=positive)
    drafted = draft_table(Table(path), answers, given_path=given_path, name=name)
    return drafted.name, drafted.text


def draft_table(
    table: Table,
    answers: Answers = NOTHING,
    *,
    given_path: str | None = None,
    name: str | None = None,
    others: Sequence[tuple[Table, str]] = (),
    outcomes: tuple[OutcomeTable, str] | None = None,
) -> Draft:
    """Return the use case over a table. `given_path` is how the YAML names it (see `path_in`).

    `others` are further tables with their paths, which are joined to it; `outcomes` is the one
    that holds its outcomes, where they stand apart (see `arrange_tables`).

    Raises:
        ConfigError: no column can be the key, the time or the label; the message says which option
            names it. Or another table has no column in common.
        SourceError: the lines of a table are one value each.
    """
    path = table.path
    for given in (table, *(other for other, _ in others)):
        _refuse_undivided(given)
    name = name_of(name or path.name.split(".")[0])
    outcome = None if outcomes is None else joined_outcome(table, outcomes[0])
    roles = guess_roles(table, answers, alone=not others, outcome_apart=outcome)
    apart: tuple[OutcomeTable, str] | None = None
    if outcomes is not None:
        apart = (
            named_apart(outcomes[0], {"rows"}),
            _place(outcomes[0].table, outcomes[1]),
        )
    joined: list[Joined] = []
    for other, other_path in others:
        taken = {"rows", *(each.name for each in joined), *([apart[0].name] if apart else [])}
        joined.append(join_table(table, roles, other, _place(other, other_path), taken, answers))
    headers = [
        column.header for one in (table, *(each for each, _ in others)) for column in one.columns
    ]
    if unknown := [header for header in answers.written_later or () if header not in headers]:
        raise ConfigError(f"--written-later {unknown}: no such column; columns are {headers}")
    now = utc_now()
    if not roles.snapshot:
        for column in (roles.event, roles.arrival, roles.outcome):
            if column is not None:
                leave_out_strays(table, column.header, now)
    for each in joined:
        if each.event is not None:
            leave_out_strays(each.table, each.event.header, now)
    times = guess_times(table, roles, answers)
    first = durations.period_start(times.cadence, first_day(joined, times.first))
    times = replace(times, first=first)
    questions = tuple(open_questions(roles, answers, joined, times.horizon))

    def lines(worst: Mapping[str, Worst]) -> str:
        shown = _place(table, given_path or path.name)
        return (
            "\n".join(
                draft_lines(
                    name, shown, table, roles, times, answers, questions, joined, worst, apart
                )
            )
            + "\n"
        )

    document = lines({})
    use_case = use_case_file.parse(document, where=f"draft of {path.name}", folder=path.parent)
    tables = {"rows": table} | {each.name: each.table for each in joined if each.event is not None}
    if apart is not None and not apart[0].is_static:
        tables[apart[0].name] = apart[0].table

    def find_worst() -> dict[str, Worst]:
        within = times.first, times.last
        sources, key = use_case.sources, use_case.entity.key
        return {
            source: one.worst(sources[source], times.cadence, key, within)
            for source, one in tables.items()
        }

    worst = find_worst()
    early = [each.early for each in worst.values() if each.early is not None]
    if early and not roles.snapshot:
        first = durations.next_period_start(times.cadence, max(early))
        why = (
            f"{times.why_last}, but behind periods of few rows that would block: up to {max(early)}"
        )
        times = replace(times, first=first, why_last=why)
        document = lines({})
        use_case = use_case_file.parse(document, where=f"draft of {path.name}", folder=path.parent)
        worst = find_worst()
    # A draft never blocks on the tables that it was made from.
    above = {
        source: one for source, one in worst.items() if one.share > use_case.sources[source].max_bad
    }
    if above:
        document = lines(above)
        use_case_file.parse(document, where=f"draft of {path.name}", folder=path.parent)
    text = with_mark(_head(table) + document, answers)
    return Draft(
        name, text, table, roles, answers, questions, tuple(joined), apart[0] if apart else None
    )


def _refuse_undivided(table: Table) -> None:
    """Refuse a CSV of one column: it has a separator that is not known, or nothing to learn."""
    if table.format != "csv" or len(table.columns) != 1:
        return
    (column,) = table.columns
    # Of one that has no header the name says nothing.
    first = column.header if table.dialect["header"] else "".join(table.distinct(column.header, 1))
    raise SourceError(
        f"{table.path}: each line is one value ({first[:60]!r}): none of , ; tab | and blanks "
        "parts it into columns. Write one of them between the values; or write the YAML by hand, "
        "with what stands between them as separator under the source"
    )


def _place(table: Table, path: str) -> str:
    """Return how a YAML names a table; of a folder, its files."""
    glob = table.files.glob if table.files is not None else None
    return path if glob is None else f"{path}/{glob}"


def _head(table: Table) -> str:
    return (
        f"# Drafted by `evergreen new` from {note(table.path.name)} ({table.rows} rows). Each "
        "guess says so: read them, then\n"
        "# run `evergreen usecase check` and `evergreen usecase check --data` on this file.\n"
    )


def path_in(folder: Path, table: Path, data_dir: Path) -> str:
    """Return how a YAML in `folder` names a table: relative to it, or to the data folder.

    Raises:
        ConfigError: the table is in neither, where no source may lie, or its name holds characters
            that a path in a YAML may not.
    """
    table = table.resolve()
    for base, prefix in ((folder.resolve(), ""), (data_dir.resolve(), "{data_dir}/")):
        if table.is_relative_to(base):
            relative = str(table.relative_to(base))
            # What a glob, a URI of fsspec or `{partition}` would read as something else.
            if re.search(r"[\\%\0{}~*?\[\]]|::", relative):
                raise ConfigError(f"{table}: its path holds one of \\ % {{ }} ~ * ? [ ]; rename it")
            return prefix + relative
    raise ConfigError(
        f"{table} is neither in {folder} nor in {data_dir}; write the YAML beside the table, or "
        "move the table"
    )
