"""Commit partitions to a Delta table: some at once, each replaced whole, or none of them.

A fence (the lease's token, kept as a Delta application transaction) makes the storage itself refuse
a writer that has been superseded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from include.errors import Busy, SourceError
from include.lake.column_types import check_types
from include.lake.sql import PARTITION, text_literal

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


Parts = Callable[[DeltaTable | None], Mapping[str, Part]]


def commit_parts(
    table: str, uri: str, look: Callable[[], DeltaTable | None], parts_of: Parts
) -> int | None:
    """Replace the partitions of some parts by one commit; return the version that it made.

    `look` gives the table as it is now. `parts_of` is asked in every try, with the table as it is
    then: it leaves out a part whose fence is lost, or raises. Without any part nothing is written,
    and None returned.

    Raises:
        Busy: other writers kept winning.
        SourceError: the storage cannot be written.
        EvergreenError: a column has another type in the table; nothing was written.
    """
    parts: Mapping[str, Part] = {}
    # A loop of its own, not a retry of one call: after each lost commit the table is opened, its
    # columns are compared and the fences are asked again.
    for _ in range(COMMIT_ATTEMPTS):
        handle = look()
        parts = parts_of(handle)
        if not parts:
            return None
        # Looked at in every try: another writer may have added a column meanwhile.
        if handle is not None:
            stored = pa.schema(handle.schema().to_arrow())
            for key, part in parts.items():
                check_types(part.rows.schema, stored, f"{table} {key}")
        if _write(uri, handle, parts):
            written = handle or look()  # one that wrote stands at its commit
            if written is None:
                raise SourceError(
                    f"{uri}: the table is gone right after its commit; who else cleans the lake?"
                )
            return int(written.version())
    raise Busy(
        f"{table} {describe_keys(parts)}: {COMMIT_ATTEMPTS} commits lost to other writers; run it "
        "again when they are done"
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
