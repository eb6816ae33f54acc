"""A lake for many partitions in one pass: what they write is committed together, once a table.

A commit costs the same for one partition as for a hundred. So what is written waits until `flush`,
or until its table is read. Each partition is still fenced by its own lease: one whose lease is lost
is left out of the commit alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
from deltalake import DeltaTable

from include.errors import Busy
from include.lake.tables import Fence, Lake, Part, check_types, refuse_superseded, storable


class BatchedLake(Lake):
    """A lake whose writes wait for `flush`.

    `find_lost` says in one question which of the fences' leases are lost, by fence; `when_lost` is
    told of each that is found to be, once, before the flush ends. What is not waiting is read as
    the table was at the last flush: in between, all that a range reads is on record, or under its
    own leases.
    """

    def __init__(
        self,
        root: str,
        *,
        find_lost: Callable[[], Mapping[str, Busy]],
        when_lost: Callable[[str], None],
    ) -> None:
        super().__init__(root)
        self._find_lost, self._when_lost = find_lost, when_lost
        self.waiting_bytes = 0
        self.lost: dict[str, Busy] = {}  # by fence
        self._failure: Exception | None = None
        self._waiting: dict[str, dict[str, Part]] = {}
        self._shared: set[tuple[str, str]] = set()
        self._fences: dict[str, Fence] = {}
        self._seen: dict[str, DeltaTable | None] = {}
        self._columns: dict[str, pa.Schema] = {}
        self._keys: dict[str, frozenset[str]] = {}

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
        handle, waiting = self._known(table), self._waiting.setdefault(table, {})
        columns = self._columns_of(table)
        check_types(part.rows.schema, columns, f"{table} {key}")
        new = [field for field in part.rows.schema if field.name not in columns.names]
        if new:
            self._columns[table] = pa.schema([*columns, *new])
        self.waiting_bytes += part.rows.nbytes
        if key in waiting:
            self.waiting_bytes -= waiting[key].rows.nbytes
        waiting[key] = part
        if shared:
            self._shared.add((table, key))
        if fence is not None:
            self._fences[fence.app] = fence
        return int(handle.version()) if handle is not None else 0

    def flush(self) -> None:
        """Write what waits, a commit a table, and look at the tables anew.

        Raises:
            SourceError: the storage cannot be written, now or when a table was read; what waits is
                forgotten.
        """
        try:
            if self._failure is not None:
                raise self._failure
            for table in list(self._waiting):
                self._flush(table)
        finally:
            self._waiting.clear()
            self._shared.clear()
            self._fences.clear()
            self._seen.clear()
            self._columns.clear()
            self._keys.clear()
            self.waiting_bytes = 0

    def keys(self, table: str, version: int | None = None) -> list[str]:
        """Return the partitions that hold rows, or will after the flush, sorted."""
        if version is not None:
            return super().keys(table, version)
        if table not in self._keys:
            handle = self._known(table)
            self._keys[table] = frozenset(() if handle is None else self._keys_in(handle))
        waiting = self._waiting.get(table, {})
        return sorted(
            (self._keys[table] - waiting.keys())
            | {key for key, part in waiting.items() if len(part.rows)}
        )

    def no_rows(self, table: str) -> pa.Table:
        """Return the columns of a table without any row, as it is or will be after the flush."""
        return self._columns_of(table).empty_table()

    def _columns_of(self, table: str) -> pa.Schema:
        """Return the columns that a table has, or will have after the flush."""
        if table not in self._columns:
            handle = self._known(table)
            self._columns[table] = pa.schema(
                [] if handle is None else pa.schema(handle.schema().to_arrow())
            )
        return self._columns[table]

    def _latest(self, table: str) -> DeltaTable | None:
        """Return the table with what waits for it, which is written first."""
        if self._waiting.get(table):
            self._flush(table)
        return self._known(table)

    def _known(self, table: str) -> DeltaTable | None:
        """Return the table as it was at the last flush."""
        if table not in self._seen:
            self._seen[table] = self._refreshed(table)
        return self._seen[table]

    def _flush(self, table: str) -> None:
        parts = self._waiting.pop(table)
        self._seen.pop(table, None)
        self._columns.pop(table, None)
        self._keys.pop(table, None)
        self.waiting_bytes -= sum(part.rows.nbytes for part in parts.values())
        try:
            self._commit(table, lambda handle: self._still_held(table, parts, handle))
        except Busy as error:  # other writers kept winning: nothing of this table is written
            for part in parts.values():
                if part.fence is not None:
                    self.lose(part.fence.app, error)
        except Exception as error:
            # Whoever caught this must not record what was to be written.
            self._failure = error
            raise

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

    def lose(self, app: str, error: Busy) -> None:
        """Take a fence for lost: nothing of it is written any more."""
        if app not in self.lost:
            self.lost[app] = error
            self._when_lost(app)
