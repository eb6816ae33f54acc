"""Keep the digest of a Bento's code with its model: a node runs no other code.

An added column that may be null; what was packaged before gets its digest when it is next packaged.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("models", sa.Column("bento_digest", sa.Text, nullable=True))
