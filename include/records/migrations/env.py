"""Run the migrations, as Alembic's entry, on the connection that `migrate` hands over."""

from __future__ import annotations

from alembic import context

from include.records.schema import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
