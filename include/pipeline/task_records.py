"""Open the records as tasks do: patient with a database that is away for a while."""

from __future__ import annotations

from include.config.settings import Settings
from include.records.records import Records


def task_records(settings: Settings) -> Records:
    """Return the records; a connection that is lost is tried again as long as the settings say.

    A server that restarts in the middle of a night is waited for, where a failed task would have
    its stage begun anew.
    """
    return Records.open(
        settings.records_address,
        patience=settings.database_patience,
        pool=settings.database_pool,
    )
