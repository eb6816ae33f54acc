"""Keep a release as a row of its own, with what nodes and the judge report of it.

New tables, and columns of the routing row that are null, or 0, where no release is under way: a
node of the version before goes on by `challenger`, `step` and `weight`.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and add the columns."""
    for name in ("release_id", "mode", "release_key"):
        op.add_column("routes", sa.Column(name, sa.Text, nullable=True))
    op.add_column("routes", sa.Column("share", _integer(), nullable=False, server_default="0"))
    op.create_table(
        "releases",
        _key("use_case"),
        _key("id"),
        _text("partition_key"),
        _number("challenger"),
        _text("challenger_digest"),
        sa.Column("bento_digest", sa.Text, nullable=True),
        sa.Column("signature", sa.Text, nullable=True),
        sa.Column("champion", _integer(), nullable=True),
        _number("opponent_generation"),
        _text("plan"),
        _number("step"),
        _text("state"),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("suspended", sa.Boolean, nullable=False),
        _instant("entered_at"),
        _instant("started_at"),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        _text("verdicts"),
        _text("reason"),
        sa.Column("gap_seconds", sa.Float(53), nullable=False),
        sa.Column("rolled_back_by_itself", sa.Boolean, nullable=False),
        _number("revision"),
    )
    op.create_index("releases_by_state", "releases", ["use_case", "state"])
    _create_reports()
    op.create_table(
        "freezes",
        _key("use_case"),
        _instant("until"),
        _text("actor"),
        _text("reason"),
        _instant("at"),
    )


def _create_reports() -> None:
    op.create_table(
        "release_beats",
        _key("use_case"),
        _text("release_id"),
        _number("beat"),
        sa.Column("seconds", sa.Float(53), nullable=False),
        _instant("at"),
    )
    op.create_table(
        "release_guards",
        _key("use_case"),
        _key("release_id"),
        _key("node"),
        _text("reason"),
        _text("boot"),
        _instant("at"),
    )
    op.create_table(
        "release_windows",
        _key("use_case"),
        _key("release_id"),
        sa.Column("step", _integer(), primary_key=True, autoincrement=False, nullable=False),
        *(_key(name) for name in ("arm", "answering", "node", "boot")),
        sa.Column("minute", _integer(), primary_key=True, autoincrement=False, nullable=False),
        _text("counts"),
        sa.Column("closed", sa.Boolean, nullable=False),
        _instant("at"),
    )


def _integer() -> Any:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True, nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, _integer(), nullable=False)


def _instant(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)
