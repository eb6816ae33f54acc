"""The lake's table of predictions: closed segments of the node's log, imported once each."""

from __future__ import annotations

import logging
import os
import socket

import pyarrow as pa
import pyarrow.compute as pc

from include.config.settings import Settings
from include.lake.commits import Fence
from include.lake.tables import Lake
from include.predictions import log as prediction_log
from include.records.records import Records

log = logging.getLogger(__name__)

BATCH = 50  # segments that are in memory at once: 50 of the greatest size are 1.6 GB of text


def import_closed(
    settings: Settings, lake: Lake, records: Records, use_case: str, *, wait: float = 60.0
) -> int:
    """Import all closed segments into `predictions` and return the number of rows.

    The table is partitioned by the day of the answer (UTC). One importer at a time, which others
    wait for up to `wait` seconds. A segment that was imported before a crash could remove it is
    recognised by its name.

    Raises:
        Busy: another importer does not end in time.
    """
    table, imported = f"{use_case}/predictions", 0
    if not prediction_log.closed_segments(settings.home, use_case):
        return 0
    owner = f"predictions@{socket.gethostname()}:{os.getpid()}"
    ttl = settings.lease_seconds
    with records.leases.claim(
        use_case, "predictions", "import", owner=owner, attempt=1, ttl=ttl, wait=wait
    ) as lease:
        fence = Fence(lease.app, lease.token, lease.check)
        segments = prediction_log.closed_segments(settings.home, use_case)
        for start in range(0, len(segments), BATCH):
            batch = segments[start : start + BATCH]
            imported += _import(lake, table, prediction_log.read(batch), fence)
            prediction_log.forget(batch)
    log.info("%s: %d predictions imported", use_case, imported)
    return imported


def _import(lake: Lake, table: str, rows: pa.Table, fence: Fence) -> int:
    """Add the rows of some segments to their days, in place of rows of the same segments."""
    days = pc.strftime(rows.column("at"), format="%Y-%m-%d")
    for day in pc.unique(days).to_pylist():
        new = rows.filter(pc.equal(days, day))
        present = lake.read(table, keys=[day])
        if len(present):
            again = pc.is_in(present.column("segment"), pc.unique(new.column("segment")))
            others = present.filter(pc.invert(again)).drop_columns(["partition"])
            new = pa.concat_tables([others, new], promote_options="permissive")
        lake.replace(
            table, day, new.sort_by([("segment", "ascending"), ("line", "ascending")]), fence=fence
        )
    return len(rows)
