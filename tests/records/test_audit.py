"""The audit chain on SQLite and PostgreSQL: gapless, append-only, and every kind of tampering is
found and named.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from include.errors import EvergreenError
from include.records import audit
from include.records.audit import AuditEntry
from include.records.records import Records

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def entry(number: int, **changes: object) -> AuditEntry:
    """Return an entry that says its number."""
    values = {
        "action": "weighed",
        "use_case": "loans",
        "subject": f"s{number}",
        "actor": "me",
        "details": {"n": number},
        "at": AT,
    }
    return AuditEntry(**{**values, **changes})


def fill(records: Records, count: int = 6) -> None:
    """Append entries 1 to count."""
    for number in range(1, count + 1):
        records.audit.append(entry(number))


def tamper(records: Records, *statements: str) -> None:
    """Change audit rows as somebody with the database's password would: past the triggers."""
    with records.transaction() as session:
        rewrite(session, *statements)


def rewrite(session: Session, *statements: str) -> None:
    """Change audit rows in a transaction, past the triggers."""
    if session.get_bind().dialect.name == "sqlite":
        bypass = ["DROP TRIGGER audit_no_update", "DROP TRIGGER audit_no_delete"]
    else:
        bypass = ["ALTER TABLE audit DISABLE TRIGGER USER"]
    for statement in (*bypass, *statements):
        session.execute(text(statement))


def test_entries_come_back_in_order_and_verify(records: Records) -> None:
    fill(records)
    rows = records.audit.entries("loans")
    assert [row.sequence for row in rows] == [1, 2, 3, 4, 5, 6]
    assert (rows[1].subject, rows[1].details, rows[1].at) == ("s2", {"n": 2}, AT)
    assert [row.subject for row in records.audit.entries(limit=2)] == ["s5", "s6"]
    assert [row.subject for row in records.audit.entries(after=4)] == ["s5", "s6"]
    assert records.audit.entries("other") == []
    assert records.audit.entries(action="other") == []
    assert [row.sequence for row in records.audit.entries(subject="s3")] == [3]
    assert records.audit.verify() is None
    assert records.audit.head() == (6, rows[-1].hash)


def test_an_empty_log_verifies(records: Records) -> None:
    assert records.audit.verify() is None


def test_a_failed_transaction_leaves_no_gap(records: Records) -> None:
    fill(records, 2)

    def fail(session: Session) -> None:
        audit.append(session, entry(99))
        session.flush()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        records.database.write(fail)
    records.audit.append(entry(3))
    assert [row.subject for row in records.audit.entries()] == ["s1", "s2", "s3"]
    assert records.audit.verify() is None


def test_many_writers_make_one_chain_without_gaps(records: Records) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: records.audit.append(entry(number)), range(48)))
    rows = records.audit.entries()
    assert [row.sequence for row in rows] == list(range(1, 49))
    assert {row.details["n"] for row in rows} == set(range(48))
    assert records.audit.verify() is None


def test_an_entry_with_the_same_once_is_written_once(records: Records) -> None:
    records.audit.append(entry(1, once="release 7"))
    records.audit.append(entry(1, once="release 7"))
    with records.transaction() as session:
        audit.append(session, entry(2, once="twice here"))
        audit.append(session, entry(2, once="twice here"))
    assert [row.once for row in records.audit.entries()] == ["release 7", "twice here"]


def test_odd_text_and_numbers_are_kept_in_a_form_that_verifies(records: Records) -> None:
    records.audit.append(
        entry(
            1,
            subject="a\x00b\ud800",
            details={"x": float("nan"), "y": "\x00", "z": AT, "ü": [1.5, -0.0, 10**18]},
        )
    )
    (row,) = records.audit.entries()
    assert row.subject == "a\ufffdb?"
    assert row.details == {"x": None, "y": "\x00", "z": AT.isoformat(), "ü": [1.5, -0.0, 10**18]}
    assert records.audit.verify() is None


def test_a_naive_time_is_refused(records: Records) -> None:
    with pytest.raises(ValueError, match="time zone"):
        records.audit.append(entry(1, at=datetime(2026, 1, 1)))  # noqa: DTZ001
    assert records.audit.entries() == []


def test_the_database_itself_refuses_changes(records: Records) -> None:
    fill(records, 3)
    for statement in (
        "UPDATE audit SET actor = 'x' WHERE sequence = 2",
        "DELETE FROM audit WHERE sequence = 2",
    ):
        with pytest.raises(Exception, match="never changed"), records.transaction() as session:
            session.execute(text(statement))
    assert records.audit.verify() is None


TAMPERING: list[tuple[list[str], int, str]] = [
    (["UPDATE audit SET actor = 'somebody else' WHERE sequence = 3"], 3, "was changed"),
    (["UPDATE audit SET details = '{\"n\": 3}' WHERE sequence = 3"], 3, "was changed"),
    (
        ["UPDATE audit SET at = '2026-03-02T12:00:00.123456+00:00' WHERE sequence = 6"],
        6,
        "was changed",
    ),
    (["UPDATE audit SET hash = 'f00' WHERE sequence = 3"], 3, "was changed"),
    (["DELETE FROM audit WHERE sequence = 3"], 3, "is missing; the next row is 4"),
    (["DELETE FROM audit WHERE sequence = 1"], 1, "is missing"),
    (["DELETE FROM audit WHERE sequence >= 5"], 5, "the log was cut, it had 6 rows"),
    (["DELETE FROM audit"], 1, "the log was cut"),
    (
        [
            f"UPDATE audit SET sequence = {new} WHERE sequence = {old}"
            for old, new in ((2, 99), (4, 2), (99, 4))
        ],
        2,
        "does not continue row 1",
    ),
    (
        ["DELETE FROM audit WHERE sequence = 3"]
        + [
            f"UPDATE audit SET sequence = {number - 1} WHERE sequence = {number}"
            for number in (4, 5, 6)
        ]
        + ["UPDATE audit_head SET sequence = 5"],
        3,
        "does not continue row 2",
    ),
    (["UPDATE audit_head SET sequence = 4"], 5, "stands behind the head"),
    (["UPDATE audit_head SET hash = 'f00'"], 6, "the head has another hash"),
    (["DELETE FROM audit_head"], 7, "the head row is gone"),
]


def test_tampering_names_the_first_bad_row(records: Records) -> None:
    fill(records)
    for statements, sequence, reason in TAMPERING:
        with Session(records.database.engine) as session:  # rolled back
            rewrite(session, *statements)
            fault = audit.first_fault(session, None)
        assert fault is not None, statements
        assert (fault.sequence, reason in fault.reason) == (sequence, True), (statements, fault)
    assert records.audit.verify() is None


def test_a_forged_row_with_a_right_hash_breaks_the_next_one(records: Records) -> None:
    fill(records)
    with records.transaction() as session:
        row = session.get_one(audit.AuditRow, 3)
        session.expunge(row)
        row.actor = "somebody else"
        forged = audit._hash(row)
    tamper(
        records, f"UPDATE audit SET actor = 'somebody else', hash = '{forged}' WHERE sequence = 3"
    )
    fault = records.audit.verify()
    assert fault is not None
    assert fault.sequence == 4
    assert "does not continue row 3: one of the two" in fault.reason


def test_a_cut_tail_with_a_mended_head_is_found_by_an_anchor(records: Records) -> None:
    fill(records, 4)
    last, anchor = records.audit.entries()[-1], None
    fill(records, 2)
    anchor = records.audit.head()
    tamper(
        records,
        "DELETE FROM audit WHERE sequence > 4",
        f"UPDATE audit_head SET sequence = 4, hash = '{last.hash}'",
    )
    assert records.audit.verify() is None
    fault = records.audit.verify(anchor=anchor)
    assert fault is not None
    assert fault.sequence == 5
    records.audit.append(entry(50))
    records.audit.append(entry(60))
    fault = records.audit.verify(anchor=anchor)
    assert fault is not None
    assert "rewritten" in fault.reason


def test_a_log_without_its_head_takes_no_entries(records: Records) -> None:
    fill(records, 1)
    tamper(records, "DELETE FROM audit_head")
    with pytest.raises(EvergreenError, match="head row"):
        records.audit.append(entry(2))
