"""The lake: versioned Delta tables, one folder a table, partitioned by the partition key.

A partition is replaced by one atomic commit (`commits`). Digests are of content, never of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from include.errors import SourceError
from include.lake.column_types import storable
from include.lake.commits import Fence, Part, Parts, commit_parts, refuse_superseded
from include.lake.copies import copies_of
from include.lake.opened import open_table, reading
from include.lake.sql import PARTITION, connect, quote, text_literal
from include.object_stores import is_remote


class Lake:
    """The versioned tables under one root (a folder or an object store URI)."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._tables: dict[str, DeltaTable] = {}
        self._pinned: dict[tuple[str, int], DeltaTable] = {}

    def uri(self, table: str) -> str:
        """Return the address of a table such as `repayment/raw/instalments`."""
        parts = table.split("/")
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
            raise SourceError(f"{table!r} is no lake table name; use plain names separated by '/'")
        return f"{self.root}/{table}"

    def replace(
        self,
        table: str,
        key: str,
        rows: pa.Table,
        *,
        fence: Fence | None = None,
        shared: bool = False,
    ) -> int:
        """Make `rows` the whole content of a partition by one commit; return the table's version.

        Columns that are new are added to the table; zero rows empty the partition. No value is ever
        cast to fit a column.

        Raises:
            Busy: the fence's lease was superseded, or other writers kept winning.
            SourceError: the storage cannot be written.
            EvergreenError: a column has another type in the table, or one that no table can hold;
                nothing was written.
        """
        part = Part(storable(rows, key, table), fence)

        def parts_of(handle: DeltaTable | None) -> dict[str, Part]:
            if fence is not None:
                fence.check()
                refuse_superseded(fence, handle, f"{table} {key}")
            return {key: part}

        version = self.commit(table, parts_of)
        assert version is not None  # only of no part at all there is none
        return version

    def commit(self, table: str, parts_of: Parts) -> int | None:
        """Replace the partitions of some parts by one commit, as `commits.commit_parts` does."""
        return commit_parts(table, self.uri(table), lambda: self._refreshed(table), parts_of)

    def flush(self) -> None:
        """Write what waits, and look at the tables anew; here every write is done at once."""

    def set_partition(
        self,
        table: str,
        key: str,
        rows: pa.Table,
        *,
        fence: Fence | None = None,
        shared: bool = False,
    ) -> None:
        """Make `rows` the content of a partition, which may be none and need not be there.

        Without rows a partition that is not there stays so, and no table is made. `shared` says
        that the rows are not the fence's own partition: a version of a static source is the same
        for every partition that knows it.

        Raises:
            Busy: as `replace` does.
            EvergreenError: as `replace` does.
        """
        if not len(rows):
            if key not in self.keys(table):
                return
            # An empty table of no known columns: it takes those that the lake has.
            rows = self.no_rows(table)
        self.replace(table, key, rows, fence=fence, shared=shared)

    def no_rows(self, table: str) -> pa.Table:
        """Return the columns of a table without any row; without a table there are none."""
        return self.read(table, keys=[])

    def read(
        self,
        table: str,
        *,
        keys: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Return the rows of some partitions (None: all), with the column `partition`.

        Without a table there are no columns.
        """
        if not self.exists(table):
            return pa.table({})
        with connect() as con:
            self.scan(con, "rows", table, keys=keys, version=version)
            chosen = ", ".join(quote(name) for name in columns) if columns else "*"
            return con.sql(f"SELECT {chosen} FROM rows").to_arrow_table()

    def files(
        self, table: str, *, keys: Sequence[str] | None = None, version: int | None = None
    ) -> list[str]:
        """Return the Parquet files of the given partitions (None: all) in a stable order.

        Those of a lake in an object store are copies here.

        Raises:
            SourceError: the storage cannot be read.
        """
        handle = self._at(table, version)
        return [] if handle is None else self._paths(handle, table, keys)

    def _paths(
        self,
        handle: DeltaTable,
        table: str,
        keys: Sequence[str] | None,
        since: str | None = None,
        until: str | None = None,
    ) -> list[str]:
        wanted = None if keys is None else set(keys)
        files = {
            path: size
            for key, path, size in sorted(_contents(handle))
            if (since is None or key >= since)
            and (until is None or key <= until)
            and (wanted is None or key in wanted)
        }
        return self.readable(table, files)

    def readable(self, table: str, sizes: Mapping[str, int]) -> list[str]:
        """Return paths from which some files of a table are read here; `sizes` are their bytes.

        Raises:
            SourceError: the storage cannot be read.
        """
        if is_remote(self.root):
            return copies_of(self.root).get(table, sizes)
        return [f"{self.uri(table)}/{path}" for path in sizes]

    def scan(
        self,
        con: duckdb.DuckDBPyConnection,
        name: str,
        table: str,
        *,
        keys: Sequence[str] | None = None,
        version: int | None = None,
        schema: pa.Schema | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> None:
        """Make a temporary DuckDB view, `name`, over some partitions (None: all) of a table.

        Without rows it has the table's columns, without a table those of `schema`. `since`
        and `until` leave out the partitions before and behind those keys.

        Raises:
            SourceError: there is no table, and no schema is given.
        """
        handle = self._at(table, version)
        empty = pa.schema(handle.schema().to_arrow()) if handle is not None else schema
        if empty is None:
            raise SourceError(
                f"lake table {table} does not exist yet; run the stage that writes it first"
            )
        no_rows = quote(f"__empty_{name}")
        con.register(f"__empty_{name}", empty.empty_table())
        paths = [] if handle is None else self._paths(handle, table, keys, since, until)
        if not paths:
            con.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS SELECT * FROM {no_rows}")
            return
        body = _rows_of(paths)
        con.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {body}")
        columns = con.execute(
            "SELECT column_name FROM duckdb_columns() WHERE table_name = ? AND internal = false",
            [name],
        )
        # Files may be older than a column that the table gained.
        if not {row[0] for row in columns.fetchall()}.issuperset(empty.names):
            con.execute(
                f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS SELECT * FROM {no_rows} UNION ALL "
                f"BY NAME {body}"
            )

    def keys(self, table: str, version: int | None = None) -> list[str]:
        """Return the partitions that hold rows, sorted."""
        handle = self._at(table, version)
        return [] if handle is None else self._keys_in(handle)

    @staticmethod
    def _keys_in(handle: DeltaTable) -> list[str]:
        return sorted({key for key, _, _ in _contents(handle)})

    def schema(self, table: str) -> pa.Schema | None:
        """Return the columns of a table without `partition`, or None where there is no table."""
        handle = self._latest(table)
        if handle is None:
            return None
        return pa.schema(
            [field for field in pa.schema(handle.schema().to_arrow()) if field.name != PARTITION]
        )

    def version(self, table: str) -> int | None:
        """Return the table's version, or None where there is no table."""
        handle = self._latest(table)
        return None if handle is None else int(handle.version())

    def exists(self, table: str) -> bool:
        """Tell whether the table was ever written."""
        return self._latest(table) is not None

    def _latest(self, table: str) -> DeltaTable | None:
        return self._refreshed(table)

    def _refreshed(self, table: str) -> DeltaTable | None:
        """Return the table as it is now, or None where there is none."""
        handle = self._tables.get(table)
        if handle is None:
            handle = open_table(self.uri(table))
            if handle is not None:
                self._tables[table] = handle
            return handle
        try:
            with reading(self.uri(table)):
                handle.update_incremental()
        except TableNotFoundError:
            self._tables.pop(table, None)
            return None
        return handle

    def _at(self, table: str, version: int | None) -> DeltaTable | None:
        if version is None:
            return self._latest(table)
        if (table, version) not in self._pinned:  # a version never changes
            handle = open_table(self.uri(table), version)
            if handle is None:
                return None
            self._pinned[table, version] = handle
        return self._pinned[table, version]


def _rows_of(paths: Sequence[str]) -> str:
    """Return the query of the rows in files of a table, with their partition."""
    listed = ", ".join(map(text_literal, paths))
    # DuckDB makes a column of each folder such as `partition=2026-01-01`, also in place of one in
    # the file. Where a folder above the lake is called so, the partition is taken from the path.
    if all(path.count("=") <= 1 for path in paths):
        return (
            f"SELECT * FROM read_parquet([{listed}], hive_partitioning = true, "
            "hive_types = {'partition': VARCHAR}, union_by_name = true)"
        )
    return (
        f"SELECT * EXCLUDE (__path), regexp_extract(__path, '.*/{PARTITION}=([^/]*)/', 1) AS "
        f"{PARTITION} FROM read_parquet([{listed}], hive_partitioning = false, union_by_name = "
        "true, filename = '__path')"
    )


def _contents(handle: DeltaTable) -> list[tuple[str, str, int]]:
    """Return partition, path and bytes of every file of a table."""
    actions = pa.table(handle.get_add_actions(flatten=True))
    if not len(actions):
        return []
    return list(
        zip(
            actions[f"partition.{PARTITION}"].to_pylist(),
            actions["path"].to_pylist(),
            actions["size_bytes"].to_pylist(),
            strict=True,
        )
    )


class RehearsalLake(Lake):
    """A lake that reads like the real one and writes nothing, for what `force` computes."""

    def replace(
        self,
        table: str,
        key: str,
        rows: pa.Table,
        *,
        fence: Fence | None = None,
        shared: bool = False,
    ) -> int:
        """Write nothing; return the version that is there."""
        return self.version(table) or 0
