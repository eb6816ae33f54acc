"""Run the migrations, as Alembic's entry, on the connection that `migrate` hands over."""

from __future__ import annotations

from alembic import context

from include.records.columns import Base
from include.records.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
