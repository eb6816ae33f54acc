"""Rows that go from quarantine into a later partition."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
KEY = ("use_case", "source", "partition_key", "file")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "redriven",
        *(sa.Column(name, sa.Text, primary_key=True, nullable=False) for name in KEY),
        sa.Column("row", BIG, primary_key=True, nullable=False, autoincrement=False),
        sa.Column("into_key", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("redriven_by_target", "redriven", ["use_case", "into_key"])
