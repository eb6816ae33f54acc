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
from deltalake import DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from include.errors import Busy, SourceError
from include.lake.column_types import check_types
from include.lake.opened import (
    commit_properties,
    find_commit,
    is_of_storage,
    new_commit_id,
    open_table,
    unwritable,
)
from include.lake.sql import PARTITION, text_literal
from include.object_stores import delta_options, is_remote

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
        version = _write(uri, handle, parts)
        if version is not None:
            return version
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


def _write(uri: str, handle: DeltaTable | None, parts: Mapping[str, Part]) -> int | None:
    """Write parts in one commit; return the version it made, or None: somebody was faster."""
    body = pa.concat_tables([part.rows for part in parts.values()], promote_options="default")
    fences = {part.fence.app: part.fence for part in parts.values() if part.fence is not None}
    commit, before = new_commit_id(), None if handle is None else int(handle.version())
    properties = commit_properties(
        commit,
        [Transaction(each.app, each.token) for each in fences.values()],
        {"partition": describe_keys(parts)},
        creates=handle is None,
    )
    listed = ", ".join(map(text_literal, parts))
    try:
        if handle is None:
            make_folder(uri)
            write_deltalake(
                uri,
                body,
                partition_by=[PARTITION],
                mode="error",
                configuration=PROPERTIES,
                commit_properties=properties,
                storage_options=delta_options(uri),
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
    except (OSError, DeltaError) as error:
        return settle(uri, commit, before, error)
    written = handle or open_table(uri)  # one that wrote stands at its commit
    if written is None:
        raise SourceError(
            f"{uri}: the table is gone right after its commit; who else cleans the lake?"
        )
    return int(written.version())


def make_folder(uri: str) -> None:
    """Make the folder that a table of a local lake lies in."""
    if not is_remote(uri):
        Path(uri).parent.mkdir(parents=True, exist_ok=True)


def settle(uri: str, commit: str, before: int | None, error: OSError | DeltaError) -> int | None:
    """Return the version that a failed commit has made all the same; None: somebody was faster.

    `before` is the version that was there when it was begun.

    Raises:
        SourceError: the storage cannot be written.
        DeltaError: the error, where it is none of the storage.
    """
    if is_remote(uri):
        made = find_commit(uri, commit, before)
        if made is not None:
            return made
    if isinstance(error, CommitFailedError):
        return None  # look again: the fence decides who goes on
    if before is None and open_table(uri) is not None:
        return None  # another writer created the table between our look and our write
    if is_of_storage(error):
        raise unwritable(uri, error) from None
    raise error
