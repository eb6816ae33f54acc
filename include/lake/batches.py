"""A lake for many partitions in one pass: what they write is committed together, once a table.

A commit costs the same for one partition as for a hundred. So what is written waits until a flush,
or until its table is read. A flush may work in a thread beside what computes the next partitions
(`flush_beside`); one does at a time, so tables are written in the order in which they were given.
Each partition is still fenced by its own lease: one whose lease is lost is left out of the commit
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future

import pyarrow as pa
from deltalake import DeltaTable

from include.errors import Busy
from include.lake.column_types import check_types, storable
from include.lake.commits import Fence, Part, refuse_superseded
from include.lake.sql import PARTITION
from include.lake.tables import Lake

FindLost = Callable[[], Mapping[str, Busy]]


class Batch:
    """What some partitions write, by table, until it is committed. `lost` are fences, by app."""

    def __init__(self, lake: Lake, find_lost: FindLost, lost: Mapping[str, Busy]) -> None:
        self._lake, self._find_lost = lake, find_lost
        self.lost = dict(lost)
        self.bytes = 0
        self._tables: dict[str, dict[str, Part]] = {}
        self._shared: set[tuple[str, str]] = set()
        self._fences: dict[str, Fence] = {}

    def add(self, table: str, key: str, part: Part, *, shared: bool) -> None:
        """Let a part be the whole content of a partition."""
        parts = self._tables.setdefault(table, {})
        self.bytes += part.rows.nbytes
        if key in parts:
            self.bytes -= parts[key].rows.nbytes
        parts[key] = part
        if shared:
            self._shared.add((table, key))
        if part.fence is not None:
            self._fences[part.fence.app] = part.fence

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be written."""
        return not self._tables

    def parts(self, table: str) -> Mapping[str, Part]:
        """Return what is written of a table, by partition."""
        return self._tables.get(table, {})

    def write(self) -> None:
        """Commit each table once.

        Raises:
            SourceError: the storage cannot be written.
        """
        for table in self._tables:
            self._write(table)

    def write_table(self, table: str) -> None:
        """Commit a table, of which nothing waits any more."""
        try:
            self._write(table)
        finally:
            self.bytes -= sum(part.rows.nbytes for part in self._tables.pop(table).values())

    def lose(self, app: str, error: Busy) -> None:
        """Take a fence for lost: nothing of it is written any more."""
        self.lost.setdefault(app, error)

    def _write(self, table: str) -> None:
        parts = self._tables[table]
        try:
            self._lake.commit(table, lambda handle: self._still_held(table, parts, handle))
        except Busy as error:  # other writers kept winning: nothing of this table is written
            for part in parts.values():
                if part.fence is not None:
                    self.lose(part.fence.app, error)

    def _still_held(
        self, table: str, parts: Mapping[str, Part], handle: DeltaTable | None
    ) -> dict[str, Part]:
        """Return the parts whose fences hold; the others are lost from now on."""
        lost = self._find_lost()
        for app in self._fences.keys() & lost.keys():
            self.lose(app, lost[app])
        held: dict[str, Part] = {}
        for key, part in parts.items():
            if part.fence is None:
                held[key] = part
                continue
            fence: Fence | None = part.fence
            if (table, key) in self._shared and part.fence.app in self.lost:
                fence = next(
                    (each for app, each in self._fences.items() if app not in self.lost), None
                )
            if fence is None or fence.app in self.lost:
                continue
            try:
                refuse_superseded(fence, handle, f"{table} {key}")
            except Busy as error:
                self.lose(fence.app, error)
                continue
            held[key] = Part(part.rows, fence)
        return held


class BatchedLake(Lake):
    """A lake whose writes wait for a flush.

    `find_lost` says in one question which of the fences' leases are lost, by fence; `when_lost` is
    told of each that is found to be, once, by the thread that uses the lake. What is not waiting is
    read as the table was at the last flush: in between, all that a range reads is on record, or
    under its own leases.
    """

    def __init__(self, root: str, *, find_lost: FindLost, when_lost: Callable[[str], None]) -> None:
        super().__init__(root)
        self._find_lost, self._when_lost = find_lost, when_lost
        self.lost: dict[str, Busy] = {}  # by fence
        # Its own handles of the tables: it may be at work in another thread.
        self._writer = Lake(root)
        self._waiting = self._new_batch()
        self._beside: tuple[Batch, Future[None]] | None = None
        self._failure: Exception | None = None
        self._seen: dict[str, DeltaTable | None] = {}
        self._columns: dict[str, pa.Schema] = {}
        self._keys: dict[str, frozenset[str]] = {}

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the rows that wait, without those that are being written."""
        return self._waiting.bytes

    def replace(
        self,
        table: str,
        key: str,
        rows: pa.Table,
        *,
        fence: Fence | None = None,
        shared: bool = False,
    ) -> int:
        """Let `rows` be the whole content of a partition at the next flush.

        What is `shared` is no partition's own: it is written as long as any lease of the batch is
        held. Returns the version that the table has now.

        Raises:
            Busy: the fence is known to be lost.
            EvergreenError: a column has another type in the table, or one that no table can hold.
        """
        if fence is not None and fence.app in self.lost and not shared:
            raise self.lost[fence.app]
        part = Part(storable(rows, key, table), fence)
        handle, columns = self._known(table), self._columns_of(table)
        check_types(part.rows.schema, columns, f"{table} {key}")
        new = [field for field in part.rows.schema if field.name not in columns.names]
        if new:
            self._columns[table] = pa.schema([*columns, *new])
        self._waiting.add(table, key, part, shared=shared)
        return int(handle.version()) if handle is not None else 0

    def flush(self) -> None:
        """Write what waits, a commit a table, and look at the tables anew.

        Raises:
            SourceError: the storage cannot be written, now or before; what waits is forgotten.
        """
        try:
            self.wait()
            self._raise_failure()
            if not self._waiting.is_empty:
                self._waiting.write()
        except Exception as error:
            self._failure = error
            raise
        finally:
            batch, self._waiting = self._waiting, self._new_batch()
            self._take_over(batch)

    def flush_beside(self, pool: Executor, work: Callable[[Batch], None]) -> None:
        """Let a thread write what waits, by `work`, while more is given to the lake.

        A flush before it is waited for: there is one at a time. What is being written is seen by
        `keys`; a table is read once it is written.

        Raises:
            SourceError: the storage could not be written before; nothing is written any more.
        """
        self.wait()
        self._raise_failure()
        batch, self._waiting = self._waiting, self._new_batch()
        self._beside = batch, pool.submit(work, batch)

    def wait(self) -> None:
        """Wait for what is being written, and look at the tables anew.

        Raises:
            SourceError: the storage cannot be written. Every later flush says so too: whoever
                caught this must not record what was to be written.
        """
        if self._beside is None:
            return
        (batch, future), self._beside = self._beside, None
        try:
            future.result()
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._take_over(batch)

    def keys(self, table: str, version: int | None = None) -> list[str]:
        """Return the partitions that hold rows, or will after the flush, sorted."""
        if version is not None:
            return super().keys(table, version)
        if table not in self._keys:
            handle = self._known(table)
            self._keys[table] = frozenset(() if handle is None else self._keys_in(handle))
        keys = set(self._keys[table])
        for batch in self._batches():
            parts = batch.parts(table)
            keys -= parts.keys()
            keys |= {key for key, part in parts.items() if len(part.rows)}
        return sorted(keys)

    def schema(self, table: str) -> pa.Schema | None:
        """Return the columns that a table has, or will have after the flush; None without one."""
        is_coming = any(batch.parts(table) for batch in self._batches())
        if not is_coming and self._known(table) is None:
            return None
        return pa.schema([field for field in self._columns_of(table) if field.name != PARTITION])

    def no_rows(self, table: str) -> pa.Table:
        """Return the columns of a table without any row, as it is or will be after the flush."""
        return self._columns_of(table).empty_table()

    def lose(self, app: str, error: Busy) -> None:
        """Take a fence for lost: nothing of it is written any more."""
        if app not in self.lost:
            self.lost[app] = error
            self._waiting.lose(app, error)
            self._when_lost(app)

    def _batches(self) -> list[Batch]:
        """Return what is being written, then what waits."""
        return [*([self._beside[0]] if self._beside is not None else []), self._waiting]

    def _columns_of(self, table: str) -> pa.Schema:
        """Return the columns that a table has, or will have after the flush."""
        if table not in self._columns:
            handle = self._known(table)
            self._columns[table] = pa.schema(
                [] if handle is None else pa.schema(handle.schema().to_arrow())
            )
        return self._columns[table]

    def _latest(self, table: str) -> DeltaTable | None:
        """Return the table with what is given of it, which is written first."""
        if any(batch.parts(table) for batch in self._batches()):
            self.wait()
        if self._waiting.parts(table):
            try:
                self._waiting.write_table(table)
            except Exception as error:
                # Whoever caught this must not record what was to be written.
                self._failure = error
                raise
            finally:
                self._take_over(self._waiting)
        return self._known(table)

    def _known(self, table: str) -> DeltaTable | None:
        """Return the table as it was at the last flush."""
        if table not in self._seen:
            self._seen[table] = self._refreshed(table)
        return self._seen[table]

    def _take_over(self, batch: Batch) -> None:
        """Take over which fences a batch found lost, and forget how the tables were before it."""
        for app, error in batch.lost.items():
            self.lose(app, error)
        self._seen.clear()
        self._keys.clear()
        # Columns that are added by what still waits are known from its rows alone.
        self._columns = {
            table: columns for table, columns in self._columns.items() if self._waiting.parts(table)
        }

    def _new_batch(self) -> Batch:
        return Batch(self._writer, self._find_lost, self.lost)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
