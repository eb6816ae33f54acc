"""Import closed segments of the prediction log into the lake: once each, whatever a crash left.

Segments are appended to the table `predictions`, partitioned by the day of the answer (UTC), a
commit a batch of them. A segment whose rows are there already, since a crash came before its
removal, is recognised by its name. Lines that cannot be read are set aside beside the segments, as
`<segment>.<how many>.bad`, with an audit row; they keep nothing else back. Segments of before the
use case's newest reset are removed instead.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from include.config.settings import Settings
from include.errors import SourceError
from include.lake.appended import AppendedTable
from include.lake.commits import Fence
from include.lake.sql import PARTITION
from include.lake.tables import Lake
from include.object_stores import explain, shown
from include.predictions import log as prediction_log
from include.predictions.log import Segment
from include.predictions.reading import SCHEMA, BadLine, stream
from include.predictions.resets import drop_forgotten
from include.predictions.shared import SharedPlace
from include.records.records import AuditEntry, Records

log = logging.getLogger(__name__)

BATCH_BYTES = 64 * 1024 * 1024  # of the text of a batch, if it has more than one segment
BATCH_SEGMENTS = 1000
AUDITED_LINES = 5  # the most that an audit row names
TABLE = "predictions"
_ROWS = SCHEMA.append(pa.field(PARTITION, pa.string()))


@dataclass
class Imported:
    """What an import came to, in lines; `waiting` are the segments that could not be read.

    `aside_in` are the folders that hold what was set aside: those of the segments.
    `not_begun` says that no node ships to the shared place yet, and where that is; '' if one does.
    """

    lines: int = 0
    set_aside: int = 0
    segments: int = 0
    waiting: list[str] = field(default_factory=list)
    not_begun: str = ""
    aside_in: list[str] = field(default_factory=list, compare=False)


def table_of(lake: Lake, use_case: str) -> AppendedTable:
    """Return the lake's table of a use case's predictions."""
    return AppendedTable(
        lake, f"{use_case}/{TABLE}", key="segment", statistics=("segment", "line", "at")
    )


@contextmanager
def only_one(
    settings: Settings, records: Records, use_case: str, *, wait: float
) -> Iterator[Fence]:
    """Hold the right to change the table; others wait for it up to `wait` seconds.

    Raises:
        Busy: another one does not end in time.
    """
    owner = f"predictions@{socket.gethostname()}:{os.getpid()}"
    with records.leases.claim(
        use_case,
        TABLE,
        "import",
        owner=owner,
        attempt=1,
        ttl=settings.lease_seconds,
        wait=wait,
    ) as lease:
        yield Fence(lease.app, lease.token, lease.check)


def import_closed(
    settings: Settings,
    lake: Lake,
    records: Records,
    use_case: str,
    *,
    at: datetime,
    actor: str,
    wait: float = 60.0,
) -> Imported:
    """Import all closed segments of a use case; `at` and `actor` go on the audit rows.

    Raises:
        Busy: another importer does not end in time, or has taken over.
        SourceError: the lake, or what is set aside, cannot be written, or the place of shipped
            segments is away, or none that nodes ship to; segments stay as they are.
    """
    imported = Imported()
    if not _local(settings, use_case) and not _shared(settings, use_case):
        imported.not_begun = _not_begun(settings, records, use_case)
        return imported
    with only_one(settings, records, use_case, wait=wait) as fence:
        # What is here first: that the shared place is away keeps none of it back.
        reset = records.newest_reset(use_case)
        for closed in (_local, _shared):
            segments = drop_forgotten(use_case, closed(settings, use_case), reset)
            for batch in _batches(segments):
                one = _Batch(batch)
                one.commit(table_of(lake, use_case), fence)
                for segment, bad in one.bad.items():
                    records.audit.append(_set_aside_entry(segment, bad, at, actor))
                    if segment.where not in imported.aside_in:
                        imported.aside_in.append(segment.where)
                prediction_log.forget(one.done)
                imported.lines += one.lines
                imported.set_aside += sum(map(len, one.bad.values()))
                imported.segments += len(one.done)
                imported.waiting += one.waiting
    log.info(
        "%s: %d predictions of %d segments imported, %d lines set aside",
        use_case,
        imported.lines,
        imported.segments,
        imported.set_aside,
    )
    imported.not_begun = _not_begun(settings, records, use_case)
    return imported


def _local(settings: Settings, use_case: str) -> list[Segment]:
    """Return the closed segments of this machine."""
    return prediction_log.closed_segments(settings.home, use_case)


def _shared(settings: Settings, use_case: str) -> list[Segment]:
    """Return those that nodes of other machines have shipped."""
    if not settings.segments_root:
        return []
    return SharedPlace(settings.segments_root).segments(use_case)


def _not_begun(settings: Settings, records: Records, use_case: str) -> str:
    """Return that no node ships yet, '' if one does; a mistyped place would look like a quiet one.

    Raises:
        SourceError: nodes serve, so one should.
    """
    uri = settings.segments_root
    if not uri or SharedPlace(uri).has_begun(use_case):
        return ""
    nodes = sorted({report.node for report in records.nodes.of(use_case)})
    if nodes:
        raise SourceError(
            f"{use_case}: no node has ever shipped its prediction log to {shown(uri)}, though "
            f"{', '.join(nodes)} served it within a day: EVERGREEN_SEGMENTS_URI names another "
            "place here than at the nodes, or a folder that is not mounted. Set it alike "
            "everywhere and start the nodes again; one that has just started leaves its mark "
            "there within seconds"
        )
    text = (
        f"no node has shipped to {shown(uri)} (EVERGREEN_SEGMENTS_URI) yet: the first one that "
        "starts does"
    )
    log.warning("%s: %s", use_case, text)
    return text


class _Batch:
    """Segments that go into the lake together, and what came of them."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self.lines = 0
        self.done: list[Segment] = []
        self.bad: dict[Segment, list[BadLine]] = {}
        self.waiting: list[str] = []

    def commit(self, table: AppendedTable, fence: Fence) -> None:
        """Append the rows that are not there yet, by one commit."""
        held = table.held({segment.name for segment in self._segments})
        new = [segment for segment in self._segments if segment.name not in held]
        # Of those that are there, what was set aside may not have been put on record yet.
        again = [segment for segment in self._segments if segment.name in held]
        for _ in stream(again, self._ended, self._unopened):
            pass
        known = len(self.done), dict(self.bad), list(self.waiting)

        def rows() -> Iterator[pa.RecordBatch]:
            # Asked again after a lost commit: counted is the last time alone.
            del self.done[known[0] :]
            self.lines, self.bad, self.waiting = 0, dict(known[1]), list(known[2])
            for batch in stream(new, self._ended, self._unopened):
                self.lines += len(batch)
                days = pc.strftime(batch.column("at"), format="%Y-%m-%d")
                yield batch.append_column(PARTITION, days)

        if new:
            table.append(_ROWS, rows, fence)

    def _ended(self, segment: Segment, bad: list[BadLine]) -> None:
        """Set the unreadable lines of a segment aside: before its rows are committed."""
        self.done.append(segment)
        if not bad:
            return
        self.bad[segment] = bad
        name = set_aside_name(segment, len(bad))
        try:
            segment.put_aside(name, b"".join(line.content for line in bad))
        except OSError as error:
            raise SourceError(
                f"{segment.where}/{name}: what cannot be read of a segment cannot be set "
                f"aside ({explain(error)}); free space or mend permissions"
            ) from None

    def _unopened(self, segment: Segment, error: OSError) -> None:
        log.error("segment %s cannot be read and stays where it is: %s", segment.path, error)
        self.waiting.append(segment.name)


def set_aside_name(segment: Segment, lines: int) -> str:
    """Return the name of the file of a segment's unreadable lines; it has them as they were."""
    return f"{segment.name}.{lines}{prediction_log.SET_ASIDE}"


def _batches(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Yield segments in batches that are bounded by their bytes."""
    batch: list[Segment] = []
    size = 0
    for segment in segments:
        try:
            bytes_of = segment.size()
        except OSError:
            bytes_of = 0  # reading it will say why
        if batch and (size + bytes_of > BATCH_BYTES or len(batch) >= BATCH_SEGMENTS):
            yield batch
            batch, size = [], 0
        batch.append(segment)
        size += bytes_of
    if batch:
        yield batch


def _set_aside_entry(
    segment: Segment, bad: Sequence[BadLine], at: datetime, actor: str
) -> AuditEntry:
    """Return the audit row of lines that were set aside: where they were and why, not what."""
    details = {
        "lines": len(bad),
        "bytes": sum(len(line.content) for line in bad),
        "file": set_aside_name(segment, len(bad)),
        "first": [[line.line, line.offset, line.reason] for line in bad[:AUDITED_LINES]],
    }
    once = f"predictions.set_aside/{segment.use_case}/{segment.name}"
    return AuditEntry(
        "predictions.set_aside", segment.use_case, segment.name, actor, details, at, once
    )
