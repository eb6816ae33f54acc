"""What the nodes follow: a use case is removed by a reset that they have not seen, and only so."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from include.clock import utc_now
from include.records import audit
from include.records.epochs import RESTORED, begin_next
from include.records.records import AuditEntry, Records

NAME = "loans"


@pytest.fixture
def served(records: Records) -> Records:
    release(records)
    return records


def release(records: Records) -> None:
    entry = AuditEntry("release", NAME, "1", "test", {}, utc_now())
    records.routes.change(NAME, set={"step": 1}, entry=entry)


def reset(records: Records) -> None:
    entry = AuditEntry("use_case.reset", NAME, NAME, "test", {}, utc_now())
    records.forget(NAME, entry=entry)


def lose(records: Records) -> None:
    """Lose the row without a reset, as a database does that was restored from before it."""
    with records.transaction() as session:
        session.execute(text("DELETE FROM routes"))


def test_a_reset_since_the_last_look_removes_a_use_case(served: Records) -> None:
    seen = served.serving_rows((NAME,))
    assert [row.route.use_case for row in seen.rows] == [NAME]
    reset(served)
    found = served.serving_rows((NAME,), seen.head)
    assert (found.rows, found.removed) == ((), {NAME})
    assert found.head == seen.head + 1
    assert served.serving_rows((), seen.head).removed == set(), "nobody follows it"


def test_a_row_that_is_lost_after_an_earlier_reset_removes_nothing(served: Records) -> None:
    reset(served)
    release(served)
    seen = served.serving_rows((NAME,))
    lose(served)
    assert served.serving_rows((NAME,), seen.head).removed == set()
    reset(served)
    assert served.serving_rows((NAME,), seen.head).removed == {NAME}


def test_in_an_epoch_that_began_meanwhile_a_reset_counts_from_its_beginning(
    served: Records,
) -> None:
    """A node that was cut off from restore and reset: the log is shorter than when it looked."""
    reset(served)
    release(served)
    seen = served.serving_rows((NAME,))
    longer = seen.head + 100

    def restore(session: Session) -> None:
        begin_next(session, backup="b", at=utc_now())
        audit.append(session, AuditEntry(RESTORED, "", "b", "test", {}, utc_now()))

    served.write(restore)
    lose(served)  # the backup was of before its release
    assert served.serving_rows((NAME,), longer, seen.epoch).removed == set()
    release(served)
    reset(served)
    found = served.serving_rows((NAME,), longer, seen.epoch)
    assert (found.removed, found.epoch) == ({NAME}, seen.epoch + 1)
    assert served.serving_rows((NAME,), longer, found.epoch).removed == set(), "seen since"


def test_in_a_database_that_was_made_anew_a_later_reset_counts(
    served: Records, tmp_path: Path
) -> None:
    for _ in range(5):
        release(served)
    seen = served.serving_rows((NAME,))
    anew = Records.open(f"sqlite:///{tmp_path / 'anew.db'}")
    anew.migrate()
    found = anew.serving_rows((NAME,), seen.head)
    assert (found.removed, found.head) == (set(), 0)
    release(anew)
    reset(anew)
    assert anew.serving_rows((NAME,), found.head).removed == {NAME}
