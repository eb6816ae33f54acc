"""Tables that only grow: rows are appended, closed partitions compacted once, old ones removed.

Nobody pins a version of such a table, so its log and the files that it no longer names are cleaned
by their age. Of the values only those of a few columns stand in its log, as statistics: it
outlives the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from include.errors import Busy
from include.lake.column_types import check_types
from include.lake.commits import COMMIT_ATTEMPTS, Fence, make_folder, refuse_superseded, settle
from include.lake.opened import (
    commit_properties,
    is_of_storage,
    new_commit_id,
    open_table,
    unwritable,
)
from include.lake.sql import PARTITION, connect, quote, text_literal
from include.lake.tables import Lake
from include.object_stores import delta_options, is_remote

Batches = Callable[[], Iterator[pa.RecordBatch]]
ROW_GROUP = 50_000  # rows that the writer holds until it writes them
KEPT_HOURS = 48  # for so long a reader may still read files that were replaced


class AppendedTable:
    """One table of a lake that only grows; its rows have a column `partition`."""

    def __init__(self, lake: Lake, table: str, *, key: str, statistics: Sequence[str]) -> None:
        """Build it; `key` is the column by which rows are found again, one of the `statistics`."""
        self._lake, self._uri, self._table, self._key = lake, lake.uri(table), table, key
        self._properties: dict[str, str | None] = {
            "delta.checkpointInterval": "20",
            "delta.enableExpiredLogCleanup": "true",
            "delta.logRetentionDuration": "interval 7 days",
            "delta.deletedFileRetentionDuration": f"interval {KEPT_HOURS} hours",
            "delta.dataSkippingStatsColumns": ",".join(statistics),
        }

    def append(self, schema: pa.Schema, batches: Batches, fence: Fence) -> None:
        """Append rows by one commit, in the memory of a few batches.

        `batches` is asked again for a commit that another writer was faster with. Columns that are
        new are added to the table.

        Raises:
            Busy: the fence's lease was superseded, or other writers kept winning.
            SourceError: the storage cannot be written.
            EvergreenError: a column has another type in the table; nothing was written.
        """
        for _ in range(COMMIT_ATTEMPTS):
            handle = self._open()
            fence.check()
            refuse_superseded(fence, handle, self._table)
            if handle is not None:
                check_types(schema, pa.schema(handle.schema().to_arrow()), self._table)
            if self._write(handle, schema, batches, fence):
                return
        raise Busy(f"{self._table}: {COMMIT_ATTEMPTS} commits lost to other writers; run it again")

    def _write(
        self, handle: DeltaTable | None, schema: pa.Schema, batches: Batches, fence: Fence
    ) -> bool:
        """Write in one commit; tell whether it came through, or somebody else was faster."""
        raised: list[Exception] = []

        def watched() -> Iterator[pa.RecordBatch]:
            try:
                yield from batches()
            except Exception as error:  # the writer would hand on its text alone
                raised.append(error)
                raise

        commit, before = new_commit_id(), None if handle is None else int(handle.version())
        given = {
            "mode": "append",
            "commit_properties": self._commit(fence, commit, creates=handle is None),
            "writer_properties": _writer(),
            "storage_options": delta_options(self._uri),
        }
        reader = pa.RecordBatchReader.from_batches(schema, watched())
        try:
            if handle is not None:
                write_deltalake(handle, reader, schema_mode="merge", **given)
            else:
                make_folder(self._uri)
                given |= {"mode": "error", "partition_by": [PARTITION]}
                write_deltalake(self._uri, reader, configuration=self._properties, **given)
        except Exception as error:
            if raised:
                raise raised[0] from None
            if not isinstance(error, OSError | DeltaError):
                raise
            return settle(self._uri, commit, before, error) is not None
        return True

    def held(self, keys: Collection[str]) -> set[str]:
        """Return those of some keys that have rows in the table.

        By the files' statistics few are read, and of these the column alone.
        """
        handle = self._open()
        if handle is None or not keys:
            return set()
        actions = pa.table(handle.get_add_actions(flatten=True))
        paths = self._overlapping(actions, min(keys), max(keys)) if len(actions) else {}
        if not paths:
            return set()
        listed = ", ".join(map(text_literal, self._lake.readable(self._table, paths)))
        with connect() as con:
            con.register("wanted", pa.table({"key": pa.array(sorted(keys), pa.string())}))
            found = con.execute(
                # Nor is a folder above the lake that is called as the key (`segment=a`) its value.
                f"SELECT DISTINCT {quote(self._key)} "
                f"FROM read_parquet([{listed}], hive_partitioning = false) "
                f"WHERE {quote(self._key)} BETWEEN ? AND ? "
                f"AND {quote(self._key)} IN (SELECT key FROM wanted)",
                [min(keys), max(keys)],
            )
            return {str(row[0]) for row in found.fetchall()}

    def _overlapping(self, actions: pa.Table, first: str, last: str) -> dict[str, int]:
        """Return the files that may hold a key between two, by path; one without statistics may."""
        names = (f"min.{self._key}", f"max.{self._key}")
        if set(names).issubset(actions.column_names):
            lowest, highest = (actions[name] for name in names)
            apart = pc.or_(pc.greater(lowest, last), pc.less(highest, first))
            actions = actions.filter(pc.invert(pc.fill_null(apart, False)))
        paths, sizes = (actions[name].to_pylist() for name in ("path", "size_bytes"))
        return dict(zip(paths, sizes, strict=True))

    def compact(self, before: str, fence: Fence) -> list[str]:
        """Put the files of each partition before a key together; return those that had several.

        Where nothing was added since, nothing is done.

        Raises:
            Busy: the fence's lease was superseded, or another writer was faster.
            SourceError: the storage cannot be written.
        """
        handle, compacted = self._open(), list[str]()
        if handle is None:
            return []
        actions = pa.table(handle.get_add_actions(flatten=True))
        if not len(actions):
            return []
        files = actions[f"partition.{PARTITION}"].value_counts().to_pylist()
        for key in sorted(one["values"] for one in files if one["counts"] > 1):
            if key >= before:
                continue
            fence.check()
            with self._explained():
                done = handle.optimize.compact(
                    partition_filters=[(PARTITION, "=", key)],
                    max_concurrent_tasks=1,  # the node shares the machine
                    writer_properties=_writer(),
                    commit_properties=self._commit(fence),
                )
            if done["numFilesAdded"]:
                compacted.append(key)
        return compacted

    def expired(self, before: str) -> dict[str, int]:
        """Return how many rows each partition before a key has; changes nothing."""
        handle = self._open()
        if handle is None:
            return {}
        actions = pa.table(handle.get_add_actions(flatten=True))
        if not len(actions):
            return {}
        rows: dict[str, int] = {}
        keys, counts = actions[f"partition.{PARTITION}"], actions["num_records"]
        for key, count in zip(keys.to_pylist(), counts.to_pylist(), strict=True):
            if key < before:
                rows[key] = rows.get(key, 0) + (count or 0)
        return rows

    def expire(self, before: str, fence: Fence) -> dict[str, int]:
        """Remove the partitions before a key; return how many rows each had.

        The files go with `clean`, once nobody can be reading them.

        Raises:
            Busy: the fence's lease was superseded, or another writer was faster.
            SourceError: the storage cannot be written.
        """
        rows, handle = self.expired(before), self._open()
        if rows and handle is not None:
            fence.check()
            with self._explained():
                handle.delete(
                    f"{PARTITION} < {text_literal(before)}", commit_properties=self._commit(fence)
                )
        return rows

    def clean(self, *, hours: int = KEPT_HOURS) -> int:
        """Delete files that the table no longer names since so many hours; return how many.

        What a killed writer left behind goes too.

        Raises:
            Busy: another writer was faster.
            SourceError: the storage cannot be written.
        """
        handle = self._open()
        if handle is None:
            return 0
        given = {"retention_hours": hours, "enforce_retention_duration": False, "full": True}
        with self._explained():
            self._set_properties(handle)
            # What is named here may be gone already; a commit each time would fill the log.
            named = handle.vacuum(dry_run=True, **given)
            if not is_remote(self._uri):
                named = [path for path in named if Path(self._uri, path).exists()]
            if named:
                handle.vacuum(dry_run=False, **given)
        return len(named)

    def _set_properties(self, handle: DeltaTable) -> None:
        """Give a table that an earlier version made the properties of today."""
        present = handle.metadata().configuration
        wanted = {name: value for name, value in self._properties.items() if value is not None}
        if any(present.get(name) != value for name, value in wanted.items()):
            handle.alter.set_table_properties(wanted)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise what the table's own errors mean to whoever asked for a change."""
        try:
            yield
        except CommitFailedError as error:
            raise Busy(f"{self._table}: another writer was faster; run it again") from error
        except (OSError, DeltaError) as error:
            # Of a store that fails in the middle the library says the one or the other.
            if not is_of_storage(error):
                raise
            raise unwritable(self._uri, error) from None

    def _open(self) -> DeltaTable | None:
        return open_table(self._uri)

    @staticmethod
    def _commit(fence: Fence, commit: str = "", *, creates: bool = False) -> CommitProperties:
        transactions = [Transaction(fence.app, fence.token)]
        return commit_properties(commit or new_commit_id(), transactions, creates=creates)


def _writer() -> WriterProperties:
    return WriterProperties(max_row_group_size=ROW_GROUP, compression="ZSTD", compression_level=1)
