"""Late rows are taken once, by the newest partition, in every order of runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from include.errors import SourceError
from include.ingestion.file_reader import FileReader
from include.point_in_time.partitions import period
from tests.builders.intake import HEAD, Intake
from tests.builders.variants import leave_to_slow
from tests.ingestion.test_arrival import DAYS, line


class Deliveries(Intake):
    """A shop whose rows come by one file, a database, or files of the day; each row comes in one
    delivery.
    """

    def __init__(self, home: Path, kind: str, more: str = "") -> None:
        self.kind = kind
        super().__init__(
            home, path="{partition}.csv" if kind == "files" else "orders.csv", more=more
        )
        self.base = home / "shop.sqlite"
        if kind == "sql":
            path = self.folder / "shop.yaml"
            query = "sql: {url_env: SHOP_DB, query: SELECT * FROM orders}"
            path.write_text(path.read_text().replace('path: "orders.csv"', query))

    def deliver(self, rows: dict[str, str]) -> None:
        """Show exactly these rows, given by the day whose file they would stand in."""
        if self.kind == "files":
            for key, text in rows.items():
                path = self.folder / f"{key}.csv"
                if not path.exists() or path.read_text() != HEAD + text:
                    self.put(HEAD + text, f"{key}.csv")
        elif self.kind == "sql":
            with sqlite3.connect(self.base) as con:
                con.execute("DROP TABLE IF EXISTS orders")
                con.execute(f"CREATE TABLE orders ({HEAD.strip()})")
                lines = "".join(rows.values()).splitlines()
                con.executemany(
                    "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)",
                    [line.split(",") for line in lines],
                )
        else:
            self.put(HEAD + "".join(rows.values()))

    def fact(self, key: str) -> dict[str, Any]:
        """Return what ingestion recorded of the orders."""
        fact: dict[str, Any] = self.result("ingest_data", key).outputs["sources"]["orders"]
        return fact

    def ids(self, key: str) -> list[str]:
        """Return the orders of a partition, those that came late marked by a star."""
        rows = self.raw(key)
        return sorted(
            row["order_id"] + "*" * row["source_file"].startswith("late://") for row in rows
        )


KINDS = ("file", "sql", "files")
ARRIVALS = ("", "arrival: event + 0s\n    late: next")


@pytest.fixture
def shop_db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", f"sqlite:///{tmp_path / 'home' / 'shop.sqlite'}")


@pytest.mark.parametrize("more", ARRIVALS, ids=["recorded", "assumed"])
@pytest.mark.parametrize("kind", leave_to_slow(KINDS))
@pytest.mark.usefixtures("shop_db")
def test_late_rows_are_taken_once_by_the_newest_partition_and_named_by_all_others(
    tmp_path: Path, kind: str, more: str
) -> None:
    made = Deliveries(tmp_path / "home", kind, more)
    rows = {day: line(index, f"{index:02} 10:00") for index, day in enumerate(DAYS, 1)}
    seen = {day: rows[day] for day in DAYS[:1]}
    made.deliver(seen)
    first = made.ingest(DAYS[0])
    # one changed in place, one that came a minute too late.
    seen[DAYS[0]] = line(1, "01 10:00", "7") + line(9, "01 23:59")
    made.deliver(seen)
    for _ in range(2):  # the record stands; what waits is named, and no memo hides it
        again = made.ingest(DAYS[0])
        waiting = again.outputs["sources"]["orders"]["waiting"]
        assert (again.digest, waiting["rows"], waiting["corrections"], waiting["partitions"]) == (
            first.digest,
            2,
            1,
            [DAYS[0]],
        )
    made.deliver(seen := seen | {day: rows[day] for day in DAYS[1:3]})
    old = made.ingest(DAYS[1], at=made.night(DAYS[2]))  # filled later: it leaves what is late
    # A day whose rows come at once reads no other day's file.
    seen_there = 0 if (kind, more) == ("files", ARRIVALS[1]) else 2
    assert (
        made.ids(DAYS[1]),
        old.outputs["sources"]["orders"].get("waiting", {"rows": 0})["rows"],
    ) == (["2"], seen_there)
    newest = made.ingest(DAYS[2])
    fact = newest.outputs["sources"]["orders"]
    assert (made.ids(DAYS[2]), fact["late"], fact["corrections"], fact["rows"]) == (
        ["1*", "3", "9*"],
        2,
        1,
        3,
    )
    assert "waiting" not in fact
    at = period(made.use_case, DAYS[2]).arrival_start
    assert {
        row["arrived_at"] for row in made.raw(DAYS[2]) if row["source_file"].startswith("late://")
    } == {at}
    before = {key: made.result("ingest_data", key).digest for key in DAYS[:3]}
    for key in DAYS[:3]:
        assert made.ingest(key, at=made.night(DAYS[3])).digest == before[key]
        assert "waiting" not in made.fact(key)
        assert made.run("ingest_data", key, force=True).reason == "equal to the record"
    made.deliver(seen | {DAYS[3]: rows[DAYS[3]]})
    assert made.ingest(DAYS[3]).outputs["sources"]["orders"]["late"] == 0
    if (kind, more) != ("file", ""):
        return
    made.run("validate_data", DAYS[2])
    assert [(row["order_id"], row["amount"]) for row in made.curated(DAYS[2])] == [
        (1, 7.0),
        (9, 1.0),
        (3, 1.0),
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("shop_db")
def test_late_rows_that_are_refused_are_named_and_taken_by_their_own_partition_with_a_reason(
    tmp_path: Path, kind: str
) -> None:
    made = Deliveries(tmp_path / "home", kind, "late: refuse")
    seen = {DAYS[0]: line(1, "01 10:00")}
    made.deliver(seen)
    made.ingest(DAYS[0])
    made.deliver(
        seen := {DAYS[0]: line(1, "01 10:00") + line(9, "01 23:59"), DAYS[1]: line(2, "02 10:00")}
    )
    with pytest.raises(
        SourceError,
        match=r"1 rows belong to partitions that are closed \(of 2026-01-01\), such as "
        r".*order_id=9",
    ):
        made.ingest(DAYS[1])
    made.ingest(DAYS[0], restate="it came late")
    assert made.ids(DAYS[0]) == ["1", "9"]
    assert (made.ingest(DAYS[1]).state, made.ids(DAYS[1])) == ("done", ["2"])


@pytest.mark.parametrize("kind", leave_to_slow(KINDS))
@pytest.mark.parametrize("how", ["forward", "backwards", "range"])
@pytest.mark.usefixtures("shop_db")
def test_a_gap_is_filled_alike_in_every_order_while_rows_are_late(
    tmp_path: Path, kind: str, how: str
) -> None:
    """Only the newest of them takes what belongs to a closed day, whichever of them runs first."""
    made = Deliveries(tmp_path / "home", kind)
    made.deliver({DAYS[0]: line(1, "01 10:00")})
    made.ingest(DAYS[0])
    rows = {day: line(index, f"{index:02} 10:00") for index, day in enumerate(DAYS, 1)}
    made.deliver(rows | {DAYS[0]: rows[DAYS[0]] + line(9, "01 23:00")})
    night = made.night(DAYS[3])
    if how == "range":
        made.load(DAYS[1], DAYS[3], ["ingest_data"], started=night)
    for key in DAYS[1:] if how == "forward" else DAYS[:0:-1] if how == "backwards" else []:
        made.ingest(key, at=night)
    assert [made.ids(key) for key in DAYS] == [["1"], ["2"], ["3"], ["4", "9*"]]
    assert [made.fact(key)["late"] for key in DAYS] == [0, 0, 0, 1]


def test_copies_of_rows_on_record_are_neither_late_nor_other_rows(tmp_path: Path) -> None:
    """Exports overlap: a row that comes again says nothing new."""
    made = Intake(tmp_path, path="orders-*.csv")
    made.put(HEAD + line(1, "01 10:00"), "orders-1.csv")
    first = made.ingest(DAYS[0])
    made.put(HEAD + line(1, "01 10:00") + line(2, "02 10:00"), "orders-2.csv")
    assert made.ingest(DAYS[1]).outputs["sources"]["orders"]["late"] == 0
    assert made.ingest(DAYS[0]).digest == first.digest


@pytest.mark.parametrize("kind", leave_to_slow(KINDS))
@pytest.mark.usefixtures("shop_db")
def test_a_value_that_is_changed_in_place_and_back_again_is_corrected_twice(
    tmp_path: Path, kind: str
) -> None:
    made = Deliveries(tmp_path / "home", kind)
    seen: dict[str, str] = {}
    for day, (key, amount) in enumerate(zip(DAYS, ("1", "7", "1", "1"), strict=True), 1):
        made.deliver(
            seen := seen
            | {key: line(day, f"{day:02} 10:00")}
            | {DAYS[0]: line(1, "01 10:00", amount)}
        )
        made.ingest(key)
    amounts = [[row["amount"] for row in made.raw(key) if row["order_id"] == "1"] for key in DAYS]
    assert amounts == [["1"], ["7"], ["1"], []]
    before = [made.result("ingest_data", key).digest for key in DAYS]
    assert [made.ingest(key, at=made.night(DAYS[3])).digest for key in DAYS] == before


def test_how_far_back_late_rows_are_looked_for_can_be_said(tmp_path: Path) -> None:
    made = Intake(tmp_path, more="late_within: 1d\n    empty: allow")
    made.put(HEAD + line(1, "01 10:00") + line(2, "02 10:00"))
    for key in DAYS[:3]:
        made.ingest(key)
    made.put(
        HEAD + line(1, "01 10:00") + line(2, "02 10:00") + line(8, "01 11:00") + line(9, "03 11:00")
    )
    made.ingest(DAYS[3])
    assert [row["order_id"] for row in made.raw(DAYS[3])] == ["9"]


def test_a_broken_line_between_two_days_is_taken_by_the_day_that_sees_it_first(
    tmp_path: Path,
) -> None:
    """It has no time of its own, so it is no late row that a source could refuse."""
    made = Intake(tmp_path, more="arrival: event + 0s\n    max_bad: 1")
    made.put(HEAD + line(1, "01 10:00"))
    made.ingest(DAYS[0])
    made.put(HEAD + line(1, "01 10:00") + "BROKEN\n" + line(2, "02 10:00"))
    assert made.ingest(DAYS[1]).outputs["sources"]["orders"]["late"] == 1
    assert [made.ingest(key).state for key in DAYS[:2]] == ["done", "done"]


def test_a_days_file_that_has_not_changed_is_not_opened_again_to_look_for_late_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Intake(tmp_path, path="{partition}.csv")
    for day, key in enumerate(DAYS[:3], 1):
        made.put(HEAD + line(day, f"{day:02} 10:00"), f"{key}.csv")
        made.ingest(key)
    opened: list[str] = []
    read = FileReader.read
    monkeypatch.setattr(
        FileReader,
        "read",
        lambda self, path, *more, **picked: (
            opened.append(path.name) or read(self, path, *more, **picked)
        ),
    )
    made.put(HEAD + line(4, "04 10:00"), f"{DAYS[3]}.csv")
    made.put(HEAD + line(1, "01 10:00") + line(9, "01 23:00"), f"{DAYS[0]}.csv")
    assert made.ingest(DAYS[3]).outputs["sources"]["orders"]["late"] == 1
    assert sorted(set(opened)) == ["2026-01-01.csv", "2026-01-03.csv", "2026-01-04.csv"]
