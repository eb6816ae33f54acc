"""Two lines of one request are two attempts, whatever else callers send as an id."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from include.predictions.attempts import number_attempts
from include.predictions.log import closed_segments
from include.predictions.reading import read
from tests.builders.logged import DAY, write_segment


@pytest.fixture
def con(tmp_path: Path) -> duckdb.DuckDBPyConnection:
    """A log in which some requests were repeated."""
    later = {seconds: DAY + timedelta(seconds=seconds) for seconds in (0.2, 9, 70, 200)}
    # The answer of node 1 was lost: node 2 was asked the same, and then answered a third time.
    write_segment(tmp_path, 1, caller_id="balancer-1")
    write_segment(tmp_path, 1, at=later[0.2], caller_id="balancer-1")
    write_segment(tmp_path, 1, at=later[9], caller_id="balancer-1")
    # The same id much later, for another customer, or for another row: requests of their own.
    write_segment(tmp_path, 1, at=later[70], caller_id="balancer-1")
    write_segment(tmp_path, 2, caller_id="balancer-1")
    write_segment(tmp_path, 1, caller_id="balancer-1", features=b'{"a":2}')
    # Without an id nothing tells a repetition from a second request; rows alone have no entity.
    write_segment(tmp_path, 5, 5)
    write_segment(tmp_path, 6, caller_id="row", entity=None)
    write_segment(tmp_path, 6, at=later[0.2], caller_id="row", entity=None, outcome=b"failed")
    write_segment(tmp_path, 1, at=later[0.2], caller_id="balancer-1", outcome=b"shadow")
    con = duckdb.connect()
    con.register("lines", read(closed_segments(tmp_path, "loans")))
    number_attempts(con, "lines", "asked")
    return con


def test_each_line_says_which_attempt_it_was(con: duckdb.DuckDBPyConnection) -> None:
    rows = con.execute(
        "SELECT caller_id, entity, features, attempt FROM asked WHERE outcome <> 'shadow'"
        ' ORDER BY caller_id, entity, features, "at", segment, line'
    ).fetchall()
    assert rows == [
        ("balancer-1", "1", '{"a":1}', 1),
        ("balancer-1", "1", '{"a":1}', 2),
        ("balancer-1", "1", '{"a":1}', 3),
        ("balancer-1", "1", '{"a":1}', 1),
        ("balancer-1", "1", '{"a":2}', 1),
        ("balancer-1", "2", '{"a":1}', 1),
        ("row", None, '{"a":1}', 1),
        ("row", None, '{"a":1}', 2),
        (None, "5", '{"a":1}', 1),
        (None, "5", '{"a":1}', 1),
    ]


def test_a_mirrored_request_is_no_attempt_and_no_line_is_lost(
    con: duckdb.DuckDBPyConnection,
) -> None:
    assert con.execute("SELECT attempt FROM asked WHERE outcome = 'shadow'").fetchall() == [(None,)]
    assert con.execute("SELECT count(*) FROM asked").fetchone() == (11,)
