"""Open the Delta tables of a lake, in a folder or an object store, and find a commit in one."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError

from include.errors import SourceError
from include.object_stores import delta_options, explain, is_remote, shown

COMMIT = "evergreenCommit"  # of each commit its own, beside what Delta keeps of it


def open_table(uri: str, version: int | None = None) -> DeltaTable | None:
    """Return a table as it is now, or as a version of it; None where there is none.

    Raises:
        SourceError: the storage cannot be read.
        ConfigError: no store of this kind can be used.
    """
    options = delta_options(uri)
    try:
        with reading(uri):
            return DeltaTable(uri, version=version, storage_options=options)
    except TableNotFoundError:
        return None


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Raise what a table's storage says when it cannot be read as a SourceError.

    Raises:
        SourceError: as said.
    """
    try:
        yield
    except TableNotFoundError:
        raise
    except (OSError, DeltaError) as error:
        raise SourceError(
            f"{shown(uri)}: cannot be read ({explain(error)}); {_remedy(uri)}"
        ) from None  # a traceback would show what is cut out of the message


def is_of_storage(error: BaseException) -> bool:
    """Tell whether an error is of the storage; a data file's comes wrapped in one of Parquet."""
    return (
        isinstance(error, OSError)
        or re.search(
            r"Error performing (GET|PUT|POST|DELETE|HEAD|list)|\(os error \d+\)|Os \{ code: \d+",
            str(error),
        )
        is not None
    )


def unwritable(uri: str, error: BaseException) -> SourceError:
    """Return the error that says that a table cannot be written."""
    if _refuses_conditions(uri, error):
        return SourceError(
            f"{shown(uri)}: the store refuses conditional puts ({explain(error)}), so that two "
            "writers could overwrite each other's commits; use one that answers If-None-Match"
        )
    return SourceError(
        f"{shown(uri)}: cannot be written ({explain(error)}); "
        f"{_remedy(uri) if is_remote(uri) else 'free space or mend permissions'}"
    )


def _refuses_conditions(uri: str, error: BaseException) -> bool:
    # Not any 501: a commit's number, or a file's name, may be one.
    refused = re.search(r"NotImplemented|\bstatus(?: code)?:? 501\b|\b501 Not ", str(error))
    return is_remote(uri) and refused is not None


def _remedy(uri: str) -> str:
    if is_remote(uri):
        return "check that the store answers, and its credentials; nothing is half written"
    return "mend its permissions, or restore it"


def new_commit_id() -> str:
    """Return the name of a commit that is to be made."""
    return uuid.uuid4().hex


def commit_properties(
    commit: str,
    transactions: Iterable[Transaction],
    metadata: dict[str, str] | None = None,
    *,
    creates: bool,
) -> CommitProperties:
    """Return the properties of a commit that `find_commit` can find.

    One that creates a table is tried once: where another writer was faster, the library would put
    it on top of that one's without asking whether the two go together.
    """
    return CommitProperties(
        custom_metadata={COMMIT: commit, **(metadata or {})},
        app_transactions=list(transactions),
        max_commit_retries=0 if creates else None,
    )


def find_commit(uri: str, commit: str, since: int | None) -> int | None:
    """Return the version that a commit made, if it did: its answer may have been lost.

    A store that wrote and could not say so is asked again by the library, finds the place of the
    commit taken, and takes it for another writer's. `since` is the version that was there before.

    Raises:
        SourceError: the storage cannot be read, so that nobody knows; a rerun finds out.
    """
    handle = open_table(uri)
    if handle is None:
        return None
    newer = int(handle.version()) - (-1 if since is None else since)
    if newer < 1:
        return None
    with reading(uri):
        entries = handle.history(newer)
    return next((int(entry["version"]) for entry in entries if entry.get(COMMIT) == commit), None)
