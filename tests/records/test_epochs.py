"""The lives of the records: the first has no row, and each restore begins the next."""

from __future__ import annotations

from datetime import UTC, datetime

from include.records.epochs import Epoch, begin_next
from include.records.records import Records

AT = datetime(2026, 3, 10, tzinfo=UTC)


def test_a_database_that_was_never_restored_is_in_its_first_epoch(records: Records) -> None:
    assert records.epochs.current() == 1
    assert records.epochs.all() == []
    assert records.serving_rows().epoch == 1


def test_each_restore_begins_the_next_epoch_which_the_nodes_read(records: Records) -> None:
    for backup in ("one", "two"):
        with records.transaction() as session:
            begin_next(session, backup=backup, at=AT)
    assert records.epochs.current() == records.serving_rows().epoch == 3
    assert records.epochs.all() == [Epoch(2, "one", AT), Epoch(3, "two", AT)]
