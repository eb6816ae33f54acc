"""Keep when the files of a model were collected: its row outlives them.

An added column that may be null; nothing was collected before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("models", sa.Column("collected_at", sa.DateTime(timezone=True), nullable=True))
