"""DuckDB connections in UTC that reach for nothing, and names and literals in SQL.

SQL is put together as text. Built from SQLGlot's expressions the contract's query of one source
takes a hundred times as long, no fewer lines, and leaves out `NULLS LAST`, which then rests on a
setting. What makes text safe is that each name goes through `quote` and each value through
`text_literal`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path
from threading import Lock

import duckdb
import psutil
import pyarrow as pa

from include.errors import SourceError

PARTITION = "partition"
TIMESTAMP = pa.timestamp("us", tz="UTC")
# What DuckDB leaves undone: of `x IN (...)` with five constants it makes a join, behind which rows
# of more than 122,880 come in another order than they were given. Results are put beside each other
# by their place, so each row then had another one's value.
LOSES_ORDER = "in_clause"


def connect(*, alone: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a connection to an in-memory DuckDB in UTC that keeps row order and loads no extension.

    The connections of a process share one database, since to open one costs more than most queries;
    what they register and their temporary tables stay their own. Whoever changes a setting takes a
    database `alone`: settings are a database's.
    """
    if alone:
        return _database()
    with _opening:
        try:
            con = _shared[0].cursor()
            con.execute("SELECT 1").fetchall()
        except (IndexError, duckdb.FatalException):
            # None yet, or one that an internal error of DuckDB has ended.
            _shared[:] = [_database()]
            _shared[0].execute("SET lock_configuration = true")
            con = _shared[0].cursor()
    return con


def limit_memory(most: str, spill: Path) -> None:
    """Let each database that is opened from now on take at most so much memory.

    What needs more is written to a folder of this process under `spill`, which DuckDB removes at
    the end. What processes left there that were killed is removed first.

    Raises:
        SourceError: the folder cannot be made.
    """
    limits = {"memory_limit": most, "spill": str(spill)}
    if _limits == limits and spill.is_dir():
        return
    try:
        spill.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceError(
            f"{spill}: cannot be made for what does not fit into memory ({error}); free space or "
            "mend permissions"
        ) from None
    _sweep(spill)
    with _opening:
        _limits.update(limits)
        _shared.clear()  # whoever has a connection keeps it, and its database with it


def _sweep(spill: Path) -> None:
    """Remove the spill folders of processes that have ended."""
    for folder in spill.iterdir():
        if folder.name.isdecimal() and not _is_in_use(folder):
            # Another process may sweep at the same moment: what is gone already is no fault.
            shutil.rmtree(folder, ignore_errors=True)


def _is_in_use(folder: Path) -> bool:
    """Tell whether the process that a spill folder is named after may have made it.

    A later process that got the same id began after the folder was last changed. A minute is
    allowed for clocks: the kernel tells a process's begin by the clock of the boot.
    """
    try:
        began = psutil.Process(int(folder.name)).create_time()
        return began <= folder.stat().st_mtime + 60
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except (psutil.Error, OSError):
        return True  # who cannot be asked may be at work


def _database() -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": 2,
        "autoinstall_known_extensions": False,
        "disabled_optimizers": LOSES_ORDER,
    }
    if _limits:
        config["memory_limit"] = _limits["memory_limit"]
        # Of each process its own: one that ends removes the folder.
        config["temp_directory"] = f"{_limits['spill']}/{os.getpid()}"
    con = duckdb.connect(":memory:", config=config)
    con.execute("SET GLOBAL TimeZone = 'UTC'")
    return con


def _leave_to_the_parent() -> None:
    """Forget the parent's database in a forked child.

    The database's threads were not copied, so the child can neither use nor close it.
    """
    global _opening
    _opening = Lock()  # another thread of the parent may have held it
    while _shared:
        # To close it would end the child by an abort.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_shared.pop()))


_shared: list[duckdb.DuckDBPyConnection] = []
_limits: dict[str, str] = {}
_opening = Lock()
os.register_at_fork(after_in_child=_leave_to_the_parent)


def quote(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """Return a text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"
