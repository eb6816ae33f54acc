"""A table that only grows: what is found again, what is fenced, and what is left to readers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from include.errors import Busy, EvergreenError
from include.lake.appended import AppendedTable
from include.lake.tables import Fence, Lake

SCHEMA = pa.schema(
    [
        ("segment", pa.string()),
        ("line", pa.int64()),
        ("text", pa.string()),
        ("partition", pa.string()),
    ]
)


def fence(token: int = 1) -> Fence:
    return Fence("loans/import", token, lambda: None)


@pytest.fixture
def table(tmp_path: Path) -> AppendedTable:
    return AppendedTable(
        Lake(str(tmp_path)), "loans/log", key="segment", statistics=("segment", "line")
    )


def rows(*segments: str, key: str = "2026-03-10") -> Iterator[pa.RecordBatch]:
    """Give a batch a segment, of one row each."""
    for segment in segments:
        row = {"segment": segment, "line": 0, "text": f"of {segment}", "partition": key}
        yield pa.RecordBatch.from_pylist([row], schema=SCHEMA)


def handle(table: AppendedTable) -> DeltaTable:
    return DeltaTable(table._uri)


def in_another_thread(work: Callable[[], None]) -> None:
    """Do what another process would: rows are asked for in a thread that cannot commit."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_batches_of_a_stream_are_one_commit(table: AppendedTable) -> None:
    assert table.held(["a"]) == set()
    table.append(SCHEMA, lambda: rows("a", "b"), fence())
    version = handle(table).version()
    table.append(SCHEMA, lambda: rows("c", "d", "e"), fence())
    assert handle(table).version() == version + 1
    assert handle(table).count() == 5


def test_what_is_there_is_found_by_files_that_may_hold_it(table: AppendedTable) -> None:
    table.append(SCHEMA, lambda: rows("a", "c"), fence())
    table.append(SCHEMA, lambda: rows("x", "z"), fence())
    assert table.held(["a", "b", "c", "x"]) == {"a", "c", "x"}
    assert table.held(["b"]) == set()
    first, _ = sorted(handle(table).file_uris(), key=lambda path: Path(path).stat().st_mtime_ns)
    Path(first).unlink()  # not asked: its statistics say that it holds none of these
    assert table.held(["y", "z"]) == {"z"}


def test_what_is_there_is_found_whatever_folders_above_the_lake_are_called(tmp_path: Path) -> None:
    """Else all that was imported would be imported once more."""
    lake = Lake(str(tmp_path / "segment=x"))
    table = AppendedTable(lake, "loans/log", key="segment", statistics=("segment", "line"))
    table.append(SCHEMA, lambda: rows("a", "b"), fence())
    assert table.held(["a", "b", "x"]) == {"a", "b"}


def test_a_commit_that_another_writer_was_faster_with_is_made_again(table: AppendedTable) -> None:
    table.append(SCHEMA, lambda: rows("a"), fence(1))
    asked: list[str] = []

    def slow() -> Iterator[pa.RecordBatch]:
        if not asked:  # meanwhile an import with the same lease, as after a lost answer
            asked.append("once")
            in_another_thread(lambda: table.append(SCHEMA, lambda: rows("b"), fence(1)))
        yield from rows("c")

    table.append(SCHEMA, slow, fence(1))
    assert table.held(["a", "b", "c"]) == {"a", "b", "c"}
    assert handle(table).count() == 3


def test_a_writer_that_was_replaced_while_it_wrote_is_refused(table: AppendedTable) -> None:
    table.append(SCHEMA, lambda: rows("a"), fence(1))

    def stopped() -> Iterator[pa.RecordBatch]:
        in_another_thread(lambda: table.append(SCHEMA, lambda: rows("b"), fence(2)))
        yield from rows("b")

    with pytest.raises(Busy, match="newer run"):
        table.append(SCHEMA, stopped, fence(1))
    assert handle(table).count() == 2


def test_a_column_of_another_type_is_refused_by_name(table: AppendedTable) -> None:
    table.append(SCHEMA, lambda: rows("a"), fence())
    other = pa.schema([("segment", pa.string()), ("line", pa.string()), ("partition", pa.string())])
    with pytest.raises(EvergreenError, match="line is string, in the table int64"):
        table.append(other, lambda: iter(()), fence())


def test_partitions_before_a_key_are_compacted_and_removed(table: AppendedTable) -> None:
    for segment in ("a", "b"):
        for key in ("2026-03-10", "2026-03-11"):
            table.append(SCHEMA, lambda s=segment, k=key: rows(s, key=k), fence())  # type: ignore[misc]
    assert table.compact("2026-03-11", fence()) == ["2026-03-10"]
    assert table.compact("2026-03-11", fence()) == []
    assert len(handle(table).file_uris()) == 3
    assert table.expire("2026-03-11", fence()) == {"2026-03-10": 2}
    assert table.expire("2026-03-11", fence()) == {}
    assert handle(table).count() == 2
    assert (table.clean(), table.clean(hours=0)) == (0, 3)


def test_a_change_that_another_writer_was_faster_with_is_tried_again_later(
    table: AppendedTable,
) -> None:
    for segment in ("a", "b"):
        table.append(SCHEMA, lambda s=segment: rows(s), fence())  # type: ignore[misc]
    # Between the look at the table and the change: its rows are removed.
    late = Fence("loans/import", 1, lambda: table.expire("2026-03-12", fence()) and None)
    with pytest.raises(Busy, match="another writer was faster"):
        table.compact("2026-03-12", late)
    assert handle(table).count() == 0


def test_of_no_table_there_is_nothing_to_do(table: AppendedTable) -> None:
    assert table.compact("2026-03-11", fence()) == []
    assert table.expire("2026-03-11", fence()) == {}
    assert table.clean() == 0
