"""Move long lists of reads into blocks that results share.

Records no longer grow with the square of the partitions.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from include.records.read_blocks import LONG, split_into_blocks

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

RESULTS = sa.table(
    "results", *(sa.column(name, sa.Text) for name in ("use_case", "key", "stage", "reads"))
)


def upgrade() -> None:
    """Create the table, and move the long lists of what is on record into it."""
    reads = op.create_table(
        "reads",
        sa.Column("use_case", sa.Text, primary_key=True, nullable=False),
        sa.Column("digest", sa.Text, primary_key=True, nullable=False),
        sa.Column("reads", sa.Text, nullable=False),
    )
    connection, written = op.get_bind(), set[tuple[str, str]]()
    key = (RESULTS.c.use_case, RESULTS.c.key, RESULTS.c.stage)
    # One at a time: all of them together are what had grown too large.
    for row in connection.execute(sa.select(*key)).all():
        same = [column == value for column, value in zip(key, row, strict=True)]
        triples = json.loads(
            connection.execute(sa.select(RESULTS.c.reads).where(*same)).scalar_one()
        )
        if len(triples) <= LONG:
            continue
        blocks = split_into_blocks(triples)
        for digest, block in blocks.items():
            if (row.use_case, digest) not in written:
                written.add((row.use_case, digest))
                text = json.dumps(block, separators=(",", ":"))
                connection.execute(
                    sa.insert(reads).values(use_case=row.use_case, digest=digest, reads=text)
                )
        connection.execute(
            sa.update(RESULTS)
            .where(*same)
            .values(reads=json.dumps(list(blocks), separators=(",", ":")))
        )
