"""Keep one digest over all that runs of a model: its bundle, its Bento's code, its pins.

An added column that may be null; what was packaged before gets its digest at the upgrade, once the
receipt of its packaging has vouched for its code.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("models", sa.Column("artefact_digest", sa.Text, nullable=True))
