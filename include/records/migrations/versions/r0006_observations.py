"""What nodes report, by node, boot, use case and role.

A new table beside `observed`, which nodes of the version before go on writing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "observations",
        *(
            sa.Column(name, sa.Text, primary_key=True, nullable=False)
            for name in ("use_case", "node", "boot", "role")
        ),
        sa.Column("version", BIG, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("digest", "state", "reason")),
        sa.Column("next_try", sa.Float(53), nullable=False),
        sa.Column("generation", BIG, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("expires", TIME, nullable=False),
    )
