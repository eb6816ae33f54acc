"""Keep with a routing row what a node must know of its use case: nodes read no files.

An added column that may be null: a node of the version before goes on reading and rolling back.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; `evergreen serve` and `evergreen usecase apply` fill it."""
    op.add_column("routes", sa.Column("description", sa.Text, nullable=True))
