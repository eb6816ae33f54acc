"""What a draft decided, column by column: for a table on the screen and for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from include.onboarding.column_roles import Roles
from include.onboarding.draft_yaml import one_line
from include.onboarding.header_words import sounds_of_id
from include.onboarding.joins import Joined
from include.onboarding.profile import Profile, Table

HEADS = ("column", "role", "type", "fits", "samples", "may also be", "marks")


@dataclass(frozen=True, slots=True)
class ColumnView:
    """One column: what it was taken for, how well, and what a person should look at."""

    column: str
    role: str
    type: str
    fits: float
    filled: float
    different: int
    samples: tuple[str, ...]
    may_also_be: tuple[str, ...]
    marks: tuple[str, ...]

    def as_row(self) -> tuple[str, ...]:
        """Return the cells of the table on the screen."""
        return (
            self.column,
            self.role,
            self.type,
            f"{self.fits:.1%}" if self.fits < 1 else "100%",
            ", ".join(sample[:18] for sample in self.samples)[:44],
            ", ".join(self.may_also_be),
            "; ".join(self.marks),
        )

    def as_json(self) -> dict[str, object]:
        """Return the fields as JSON has them."""
        return asdict(self)


def view_columns(table: Table, roles: Roles) -> list[ColumnView]:
    """Return what became of each column, those of a role first."""
    named = {
        id(column): role
        for role, column in (
            ("entity", roles.entity),
            ("key", roles.record),
            ("decision's time", roles.event),
            ("arrival", roles.arrival),
            ("label", roles.label),
            ("outcome's time", roles.outcome),
        )
        if column is not None
    }
    left = {id(column): reason for column, reason in roles.left_out}
    made = [
        column
        for column in (roles.entity, roles.event, roles.label, roles.outcome)
        if column is not None and column.made
    ]
    views = []
    for column in (*made, *table.columns):
        role = named.get(id(column)) or ("left out" if id(column) in left else "feature")
        views.append(
            (
                list(named.values()).index(role) if role in named.values() else 9,
                _view(table, roles, column, role, left.get(id(column), "")),
            )
        )
    return [view for _, view in sorted(views, key=lambda pair: pair[0])]


def view_joined(joined: Joined) -> list[ColumnView]:
    """Return what became of each column of a further table."""
    roles = {
        id(column): role
        for role, column in (
            ("entity", joined.match.there),
            ("time", joined.event),
            ("arrival", joined.arrival),
        )
        if column is not None
    }
    left = {id(column): reason for column, reason in joined.left_out}
    views = []
    for column in joined.table.columns:
        role = roles.get(id(column)) or ("left out" if id(column) in left else "feature")
        view = _view(joined.table, joined, column, role, left.get(id(column), ""))
        views.append(replace(view, column=f"{joined.name}: {view.column}"))
    return views


def _view(
    table: Table, roles: Roles | Joined, column: Profile, role: str, reason: str
) -> ColumnView:
    filled = table.rows - column.nulls
    marks = []
    if any(column is other for other in roles.written_later):
        marks.append("taken for written after the decision")
    elif reason:
        marks.append(reason)
    if column.header in roles.evidence:
        marks += roles.evidence[column.header].marks(column)
    if column.misfits:
        marks.append(f"{column.misfits} values do not fit")
    marks += column.notes
    samples = () if column.made == "digest" else tuple(table.samples(column.header))
    return ColumnView(
        one_line(column.header),
        role,
        column.type,
        1 - column.misfits / max(1, filled),
        filled / table.rows,
        column.distinct,
        tuple(map(one_line, samples)),
        tuple(_others(roles, column, role)) if isinstance(roles, Roles) else (),
        tuple(map(one_line, marks)),
    )


def _others(roles: Roles, column: Profile, role: str) -> list[str]:
    """Return what else a column could have been."""
    others = []
    if any(column is other for other in roles.moments) and column is not roles.event:
        others.append("decision's time")
    if (
        role in ("feature", "left out", "key")
        and column.nulls == 0
        and (sounds_of_id(column.header) or (column.unique and column.type in ("int64", "string")))
    ):
        others.append("entity")
    if role == "feature" and column.distinct == 2:
        others.append("label")
    return others
