"""Keep where the artefacts of a model are by their address in the store, beside the recorded path.

Added columns that may be null: a node of the version before goes on reading paths. What lies under
`models/USE_CASE` of some home, as earlier versions kept it, gets its address now; other paths stay
paths.
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COLUMNS = ("bundle_uri", "reference_uri", "bento_uri")
# Partition and digest, as training named the folder of a model's files.
_FOLDER = re.compile(r"(?:.*/)?models/([a-z0-9_]+)/([0-9A-Za-z-]+)/([0-9a-f]{16})/bundle")


def upgrade() -> None:
    """Add the columns, and fill them from the recorded paths."""
    for column in COLUMNS:
        op.add_column("models", sa.Column(column, sa.Text, nullable=True))
    models = sa.table(
        "models",
        *(sa.column(name) for name in ("use_case", "version", "bundle", "manifest", *COLUMNS)),
    )
    connection = op.get_bind()
    has_reference = models.c.manifest.like("%/reference.parquet%")
    rows = connection.execute(
        sa.select(models.c.use_case, models.c.version, models.c.bundle, has_reference)
    ).all()
    for use_case, version, bundle, referenced in rows:
        folder = folder_address(use_case, bundle)
        if folder is None:
            continue
        values = {"bundle_uri": f"{folder}/bundle"}
        if referenced:
            values["reference_uri"] = f"{folder}/reference.parquet"
        connection.execute(
            sa.update(models)
            .where(models.c.use_case == use_case, models.c.version == version)
            .values(**values)
        )


def folder_address(use_case: str, bundle: str) -> str | None:
    """Return the address of the folder that a bundle lies in; None: it is no path of that form."""
    match = _FOLDER.fullmatch(bundle)
    if match is None or match.group(1) != use_case:
        return None
    return "store:models/" + "/".join(match.groups())
