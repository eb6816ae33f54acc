"""Keep who has signed a model, when, and whether that was at its packaging or at an upgrade.

Added columns that may be null: models of versions before have no signature until the upgrade signs
what their digests vouch for.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for name in ("signature", "signing_key", "signed_as"):
        op.add_column("models", sa.Column(name, sa.Text, nullable=True))
    op.add_column("models", sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True))
