"""The lake: versioned Delta tables, one folder a table, partitioned by the partition key.

A partition is replaced by one atomic commit. A fence (the lease's token, kept as a Delta
application transaction) makes the storage itself refuse a writer that has been superseded. Digests
are of content, never of files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from include.errors import Busy, EvergreenError, SourceError
from include.lake.sql import PARTITION, TIMESTAMP, connect, quote, text_literal

COMMIT_ATTEMPTS = 8
# Opening a table reads its log since the last checkpoint. Manifests pin old versions: the log is
# never cleaned by its age.
PROPERTIES: dict[str, str | None] = {
    "delta.checkpointInterval": "20",
    "delta.enableExpiredLogCleanup": "false",
}


@dataclass(frozen=True, slots=True)
class Fence:
    """Proof of a lease, for the storage: `app` and `token` go into the commit.

    `check` raises Busy when the lease was superseded.
    """

    app: str
    token: int
    check: Callable[[], None]


class Part(NamedTuple):
    """The whole content of a partition, as it is stored, with the proof that it may be written."""

    rows: pa.Table
    fence: Fence | None


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

        version = self._commit(table, parts_of)
        assert version is not None  # only of no part at all there is none
        return version

    def _commit(
        self, table: str, parts_of: Callable[[DeltaTable | None], dict[str, Part]]
    ) -> int | None:
        """Replace the partitions of some parts by one commit; return the version that it made.

        `parts_of` is asked in every try, with the table as it is then: it leaves out a part whose
        fence is lost, or raises. Without any part nothing is written, and None returned.
        """
        uri, parts = self.uri(table), dict[str, Part]()
        # A loop of its own, not a retry of one call: after each lost commit the table is opened,
        # its columns are compared and the fences are asked again.
        for _ in range(COMMIT_ATTEMPTS):
            handle = self._refreshed(table)
            parts = parts_of(handle)
            if not parts:
                return None
            # Looked at in every try: another writer may have added a column meanwhile.
            if handle is not None:
                stored = pa.schema(handle.schema().to_arrow())
                for key, part in parts.items():
                    check_types(part.rows.schema, stored, f"{table} {key}")
            if self._write(uri, handle, parts):
                written = handle or self._refreshed(table)  # one that wrote stands at its commit
                if written is None:
                    raise SourceError(
                        f"{uri}: the table is gone right after its commit; who else cleans the "
                        "lake?"
                    )
                return int(written.version())
        raise Busy(
            f"{table} {describe_keys(parts)}: {COMMIT_ATTEMPTS} commits lost to other writers; run "
            "it again when they are done"
        )

    @staticmethod
    def _write(uri: str, handle: DeltaTable | None, parts: Mapping[str, Part]) -> bool:
        """Write parts in one commit; tell whether it came through, or somebody else was faster."""
        body = pa.concat_tables([part.rows for part in parts.values()], promote_options="default")
        fences = {part.fence.app: part.fence for part in parts.values() if part.fence is not None}
        properties = CommitProperties(
            custom_metadata={"partition": describe_keys(parts)},
            app_transactions=[Transaction(each.app, each.token) for each in fences.values()],
        )
        listed = ", ".join(map(text_literal, parts))
        try:
            if handle is None:
                if "://" not in uri:
                    Path(uri).parent.mkdir(parents=True, exist_ok=True)
                write_deltalake(
                    uri,
                    body,
                    partition_by=[PARTITION],
                    mode="error",
                    configuration=PROPERTIES,
                    commit_properties=properties,
                )
            else:
                write_deltalake(
                    handle,
                    body,
                    mode="overwrite",
                    predicate=f"{PARTITION} IN ({listed})",
                    schema_mode="merge",
                    commit_properties=properties,
                )
        except CommitFailedError:
            return False  # somebody else committed first: look again, the fence decides who goes on
        except Exception as error:
            if handle is None and DeltaTable.is_deltatable(uri):
                return False  # another writer created the table between our look and our write
            if isinstance(error, OSError):
                raise SourceError(
                    f"{uri}: cannot be written ({error}); free space or mend permissions"
                ) from error
            raise
        return True

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
        """Return the Parquet files of the given partitions (None: all) in a stable order."""
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
        files = [
            (key, path)
            for key, path in _contents(handle)
            if (since is None or key >= since) and (until is None or key <= until)
        ]
        return [
            f"{self.uri(table)}/{path}"
            for key, path in sorted(files)
            if wanted is None or key in wanted
        ]

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
        listed = ", ".join(map(text_literal, paths))
        body = (
            f"SELECT * FROM read_parquet([{listed}], hive_partitioning = true, "
            "hive_types = {'partition': VARCHAR}, union_by_name = true)"
        )
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
        return sorted({key for key, _ in _contents(handle)})

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
        try:
            if handle is None:
                handle = self._tables[table] = DeltaTable(self.uri(table))
            else:
                handle.update_incremental()
        except TableNotFoundError:
            self._tables.pop(table, None)
            return None
        return handle

    def _at(self, table: str, version: int | None) -> DeltaTable | None:
        if version is None:
            return self._latest(table)
        if (table, version) not in self._pinned:  # a version never changes
            try:
                self._pinned[table, version] = DeltaTable(self.uri(table), version=version)
            except TableNotFoundError:
                return None
        return self._pinned[table, version]


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type under which the lake keeps all values of a type as they are."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return TIMESTAMP
    return pa.date32() if pa.types.is_date(kind) else kind


def storable(rows: pa.Table, key: str, table: str) -> pa.Table:
    """Return rows of a partition in the types that are kept, with the column `partition`.

    Refused is a type whose values Delta would change, or cannot hold. A column without any value
    has no type of its own until there is one: it is text.

    Raises:
        EvergreenError: a column has such a type; names it.
    """
    if PARTITION in rows.column_names:
        rows = rows.drop_columns([PARTITION])
    for index, field in enumerate(rows.schema):
        kind = plain_type(field.type)
        lossy = (
            pa.types.is_unsigned_integer(kind)
            or pa.types.is_time(kind)
            or pa.types.is_duration(kind)
        )
        if lossy or pa.types.is_float16(kind) or kind == pa.timestamp("ns"):
            raise EvergreenError(
                f"{table}: column {field.name} is {kind}, which no table keeps as it is; give it "
                "another type"
            )
        if kind != field.type:
            try:
                rows = rows.set_column(index, field.name, rows.column(index).cast(kind))
            except pa.ArrowInvalid as error:  # nanoseconds that microseconds do not hold
                raise EvergreenError(
                    f"{table}: column {field.name} is {field.type} and does not fit {kind}: {error}"
                ) from None
    return rows.append_column(
        PARTITION,
        pa.array([key], pa.string()).take(pa.array(np.zeros(len(rows), dtype=np.int64))),
    )


def check_types(given: pa.Schema, stored: pa.Schema, where: str) -> None:
    """Refuse columns of another type than in the table: Delta would cast them without a word."""
    types = {field.name: field.type for field in stored}
    other = [
        f"{field.name} is {field.type}, in the table {types[field.name]}"
        for field in given
        if field.name in types
        and plain_type(types[field.name]) != field.type
        and not pa.types.is_nested(field.type)
    ]
    if other:
        raise EvergreenError(
            f"{where} is not written, its columns have other types than the table's: "
            f"{'; '.join(other)}. A table whose columns follow from the use case carries their "
            "digest in its name; this one lacks it, report this"
        )


def describe_keys(keys: Collection[str]) -> str:
    """Return the keys of some partitions in words: the only one, or the first and the last."""
    first, last = min(keys), max(keys)
    return first if first == last else f"{first} to {last}"


def refuse_superseded(fence: Fence, handle: DeltaTable | None, where: str) -> None:
    """Refuse a write after that of a newer lease, as the table itself tells.

    Raises:
        Busy: a newer run has written already.
    """
    if handle is not None and (handle.transaction_version(fence.app) or 0) > fence.token:
        raise Busy(
            f"{where}: a newer run has written this partition; this writer (token {fence.token}) "
            "stops"
        )


def _contents(handle: DeltaTable) -> list[tuple[str, str]]:
    """Return partition and path of every file of a table."""
    actions = pa.table(handle.get_add_actions(flatten=True))
    if not len(actions):
        return []
    return list(
        zip(actions[f"partition.{PARTITION}"].to_pylist(), actions["path"].to_pylist(), strict=True)
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
