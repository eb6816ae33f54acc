"""Keep what is known of a release beside its windows, and the probation that follows it.

New tables, which nodes neither read nor write.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    integer = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "release_evidence",
        *(_key(name) for name in ("use_case", "release_id")),
        sa.Column("step", integer, primary_key=True, autoincrement=False, nullable=False),
        *(_key(name) for name in ("metric", "source")),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "probations",
        *(_key(name) for name in ("use_case", "release_id")),
        sa.Column("version", integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("opponent", integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("matures_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
    )


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True, nullable=False)
