"""Of each raw row one thing becomes: a curated row, a quarantined one, or a counted duplicate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.builders.intake import GOOD, HEAD, Intake


def test_duplicates_are_dropped_and_conflicts_decided_by_their_values(tmp_path: Path) -> None:
    """Fault 40: equal rows count once; of rows that differ at one created time the greatest
    stays, whatever their order.
    """
    line = "{},1,2026-01-01T01:00:00Z,2026-01-01T0{}:00:00Z,{},1\n"
    rows = [
        line.format(1, 2, 5),
        line.format(1, 2, 5),
        line.format(1, 2, 9),
        line.format(1, 2, 7),
        line.format(1, 3, 6),
        line.format(2, 2, 1),
    ]
    digests = set()
    for name, content in (("forward", rows), ("backward", rows[::-1])):
        made = Intake(tmp_path / name, more="max_bad: 1")
        made.put(HEAD + "".join(content))
        report = made.validate()
        fact = report.outputs["sources"]["orders"]
        assert {
            what: fact[what] for what in ("rows", "duplicates", "conflicts", "quarantined")
        } == {
            "rows": 3,
            "duplicates": 1,
            "conflicts": 2,
            "quarantined": 2,
        }
        assert [row["amount"] for row in made.curated("2026-01-01")] == [9.0, 1.0, 6.0]
        assert set(made.rules("2026-01-01").values()) == {"conflicting_duplicate"}
        digests.add(report.digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("head", "more", "said"),
    [
        (
            HEAD.replace("amount", "amont"),
            "",
            "missing 'amount' (in orders.csv); extra 'amont' (in orders.csv); is 'amont' the "
            "renamed 'amount'?",
        ),
        (
            HEAD.replace("amount", "Amount"),
            "extra: ignore",
            "is 'Amount' the renamed 'amount'? then write header: Amount under amount",
        ),
        (HEAD.replace("paid", "paid,note"), "", "extra 'note' (in orders.csv)"),
        (HEAD.replace("paid", "zzz"), "extra: ignore", "missing 'paid' (in orders.csv)"),
    ],
)
def test_columns_that_differ_from_the_contract_block_with_the_difference(
    made: Intake, head: str, more: str, said: str
) -> None:
    """Fault 37."""
    made.define(more=more)
    made.put(
        head + (GOOD.replace("1\n", "1,x\n").replace("0\n", "0,x\n") if "note" in head else GOOD)
    )
    report = made.validate()
    assert report.state == "blocked"
    assert said in report.reason


def test_extra_columns_are_ignored_where_the_source_says_so_and_order_does_not_matter(
    made: Intake,
) -> None:
    expected = made.validate().digest
    made.define(more="extra: ignore")
    lines = [line.split(",") for line in (HEAD + GOOD).splitlines()]
    made.put("\n".join(",".join([*reversed(line), "note"]) for line in lines) + "\n")
    made.ingest(restate="other layout")
    assert made.run("validate_data", "2026-01-01").digest == expected


def test_a_column_missing_in_one_of_several_files_is_told_with_that_file(made: Intake) -> None:
    made.define(path="*.csv")
    made.put(HEAD.replace(",amount", "") + "9,1,2026-01-01,2026-01-01T20:00:00Z,1\n", "z.csv")
    report = made.validate()
    assert report.state == "blocked"
    assert "missing 'amount' (in z.csv)" in report.reason


FIRST = "9,7,2026-01-01T11:00:00Z,2026-01-01T20:00:00Z,5,1\n"
LAST = "9,7,2026-01-01T11:00:00Z,2026-01-01T23:00:00Z,3,0\n"
OTHER = "2,2,2026-01-02T10:00:00Z,2026-01-02T10:00:00Z,20,0\n"


@pytest.mark.parametrize("late", [FIRST + LAST, LAST + FIRST, LAST + FIRST + FIRST])
@pytest.mark.parametrize("kind", ["late", "files", "assumed"])
def test_of_versions_that_came_late_together_the_last_one_stands_and_none_is_bad(
    tmp_path: Path, kind: str, late: str
) -> None:
    """All are created as the interval begins, where nobody knew of any; the greatest stood.

    A file of the day before that is short of them, a file of the day that brings older rows, and
    versions of an assumed arrival, whose events differ.
    """
    more = "max_bad: 0"
    if kind == "assumed":
        more += "\n    arrival: event + 0s\n    late: next\n    extra: ignore"
        late = late.replace(LAST, LAST.replace("T11:00", "T12:00"))
    path = "{partition}.csv" if kind == "files" else "orders.csv"
    made = Intake(tmp_path, path=path, more=more)
    before = "1,1,2026-01-01T10:00:00Z,2026-01-01T10:00:00Z,10,1\n"
    first, second = "2026-01-01", "2026-01-02"
    made.put(HEAD + before, path.format(partition=first))
    made.ingest(first)
    day = late + OTHER if kind == "files" else before + late + OTHER
    made.put(HEAD + day, path.format(partition=second))
    made.ingest(second)
    report = made.validate(second)
    assert report.reason == ""
    assert (report.state, made.rules(second)) == ("done", {})
    start = datetime(2026, 1, 2, tzinfo=UTC)
    found = {row["created_timestamp"]: row["amount"] for row in made.curated(second)}
    assert found == {
        start: 5.0,
        start + timedelta(microseconds=1): 3.0,
        start + timedelta(hours=10): 20.0,
    }
    (fact,) = made.result("validate_data", second).outputs["sources"].values()
    assert fact["duplicates"] == late.count(FIRST) - 1
