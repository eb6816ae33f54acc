"""Where a row belongs: broken lines, late rows, files of a partition, in every order of runs and
for every kind of source.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigError, SourceError
from include.ingestion.file_reader import FileReader
from include.point_in_time.partitions import period
from tests.builders.intake import HEAD, Intake

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]


def line(number: int, created: str, amount: str = "1") -> str:
    """Return an order that happened and arrived at one moment, such as `01 10:00`, of January
    2026.
    """
    moment = f"2026-01-{created[:2]}T{created[3:]}Z"
    return f"{number},1,{moment},{moment},{amount},1\n"


def as_json(text: str) -> str:
    """Return CSV lines as JSON lines; a broken one stays as it is."""
    names = HEAD.strip().split(",")
    rows = [row.split(",") for row in text.splitlines()]
    return "".join(
        json.dumps(dict(zip(names, row, strict=True))) + "\n"
        if len(row) == len(names)
        else ",".join(row) + "\n"
        for row in rows
    )


@pytest.mark.parametrize("kind", ["csv", "blank", "quoted", "crlf", "gz", "jsonl"])
def test_a_broken_line_stays_where_it_stands_as_the_file_grows(tmp_path: Path, kind: str) -> None:
    """It is set aside once, with the rows around it, and closed days run again without a reason."""
    name = "orders.jsonl" if kind == "jsonl" else "orders.csv.gz" if kind == "gz" else "orders.csv"
    made = Intake(tmp_path, path=name, more="max_bad: 1")

    def deliver(text: str) -> None:
        body = as_json(text) if kind == "jsonl" else HEAD + text
        body = body.replace("\n", "\r\n") if kind == "crlf" else body
        made.put(gzip.compress(body.encode()) if kind == "gz" else body, name)

    first = {
        "blank": "\n\n" + line(1, "01 01:00") + "\n2,BROKEN\n" + line(3, "01 03:00"),
        "quoted": line(1, "01 01:00", '"1\n\n\n"') + "2,BROKEN\n" + line(3, "01 03:00"),
    }.get(kind, line(1, "01 01:00") + "2,BROKEN\n" + line(3, "01 03:00"))
    told = []
    for key, more in zip(
        DAYS[:3],
        ("", line(4, "02 01:00") + "5,6,BROKEN\n" + line(6, "02 02:00"), line(7, "03 01:00")),
        strict=True,
    ):
        first += more
        deliver(first)
        report = made.validate(key)
        told.append(report.outputs["sources"]["orders"]["rules"].get("malformed_row", 0))
    assert told == [1, 1, 0]
    assert [row["malformed"] for row in made.raw(DAYS[0]) if row["malformed"]] == ["2,BROKEN"]
    assert [
        (row["source_row"], row["malformed"]) for row in made.raw(DAYS[1]) if row["malformed"]
    ] == [(5, "5,6,BROKEN")]
    before = [made.result("ingest_data", key).digest for key in DAYS[:3]]
    assert [made.ingest(key).digest for key in DAYS[:3]] == before


def test_a_json_object_with_a_key_twice_is_set_aside_by_its_line(tmp_path: Path) -> None:
    made = Intake(tmp_path, path="orders.jsonl", more="max_bad: 1")
    good = as_json(line(1, "01 01:00"))
    made.put(good + good.replace('"amount": "1"', '"amount": "1", "amount": "2"'), "orders.jsonl")
    report = made.validate(DAYS[0])
    assert report.outputs["sources"]["orders"]["rules"] == {"malformed_row": 1}
    assert made.rules(DAYS[0]) == {2: "malformed_row"}


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
@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("how", ["forward", "backwards", "range"])
@pytest.mark.parametrize("more", ["arrival: event + 6h", "spill: 6h"], ids=["assumed", "recorded"])
def test_a_row_of_a_days_file_belongs_to_the_day_in_which_it_arrives(
    tmp_path: Path, more: str, how: str
) -> None:
    """At the end of the file's day, and of what another day reads of it, one microsecond before
    and after: never in none.
    """
    made = Intake(tmp_path, path="{partition}.csv", more=f"{more}\n    empty: allow")
    lag = timedelta(hours=6) if "event" in more else timedelta(0)
    ends = {1: "02T00:00:00Z", 3: "02T06:00:00Z"}
    rows = ""
    for number, end in ends.items():
        for step, moment in enumerate((end.replace(":00Z", ":00.000001Z"), end, before(end))):
            at = shifted(moment, -lag)
            rows += f"{10 * number + step},1,{at},{at},1,1\n"
    made.put(HEAD + rows, f"{DAYS[0]}.csv")
    keys = DAYS[:3]
    if how == "range":
        made.load(keys[0], keys[-1], ["ingest_data"], started=made.night(keys[-1]))
    for key in keys if how == "forward" else keys[::-1] if how == "backwards" else []:
        made.ingest(key, at=made.night(keys[-1]))
    found = [sorted(row["order_id"] for row in made.raw(key)) for key in keys]
    # 30 and 31 come after the last who reads the file: they stay in it, and validation says that
    # they are not known yet.
    assert found == [["12", "30", "31"], ["10", "11", "32"], []]
    assert all(
        row["arrived_at"] < period(made.use_case, key).as_of
        for key in keys
        for row in made.raw(key)
    )


def before(moment: str) -> str:
    """Return the time a microsecond earlier."""
    return shifted(moment, timedelta(microseconds=-1))


def shifted(moment: str, by: timedelta) -> str:
    """Return a time of January 2026, given as `02T06:00:00Z` or whole, moved by a while."""
    whole = moment if moment.startswith("2026") else f"2026-01-{moment}"
    return (
        (datetime.fromisoformat(whole.replace("Z", "+00:00")) + by)
        .isoformat()
        .replace("+00:00", "Z")
    )


def test_an_event_an_hour_before_midnight_that_arrives_six_hours_later_passes(
    tmp_path: Path,
) -> None:
    made = Intake(tmp_path, path="{partition}.csv", more="arrival: event + 6h\n    extra: ignore")
    for day, key in enumerate(DAYS[:2], 1):
        made.put(
            HEAD + line(10 * day, f"{day:02} 10:00") + line(10 * day + 1, f"{day:02} 23:00"),
            f"{key}.csv",
        )
    assert [made.validate(key).state for key in DAYS[:2]] == ["done", "done"]
    created = {
        row["order_id"]: row["created_timestamp"].isoformat() for row in made.curated(DAYS[1])
    }
    assert created == {11: "2026-01-02T05:00:00+00:00", 20: "2026-01-02T16:00:00+00:00"}


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
        lambda self, path, *more: opened.append(path.name) or read(self, path, *more),
    )
    made.put(HEAD + line(4, "04 10:00"), f"{DAYS[3]}.csv")
    made.put(HEAD + line(1, "01 10:00") + line(9, "01 23:00"), f"{DAYS[0]}.csv")
    assert made.ingest(DAYS[3]).outputs["sources"]["orders"]["late"] == 1
    assert sorted(set(opened)) == ["2026-01-01.csv", "2026-01-03.csv", "2026-01-04.csv"]


PEOPLE = """  people:
    kind: static
    path: people.csv
    valid_from: 2025-12-01
    key: [customer_id]
    columns: {customer_id: {type: int64}, town: {type: string}}
label:"""


class Town(Intake):
    """A shop with a static source of one customer, whose town changes."""

    def __init__(self, home: Path, more: str = "") -> None:
        super().__init__(home, more="empty: allow")
        path = self.folder / "shop.yaml"
        path.write_text(
            path.read_text().replace("label:", PEOPLE.replace("\nlabel:", f"{more}\nlabel:"), 1)
        )
        self.put(HEAD)

    def move(self, town: str) -> None:
        """Write the customer's town."""
        self.put(f"customer_id,town\n1,{town}\n", "people.csv")

    def towns(self, *keys: str) -> list[str]:
        """Return the town that each day knows."""
        known = [
            self.result("ingest_data", key).outputs["sources"]["people"]["version"] for key in keys
        ]
        return [self.raw(version, "people")[0]["town"] for version in known]


@pytest.mark.parametrize("how", ["forward", "backwards", "range"])
def test_a_static_version_is_known_from_the_day_that_was_newest_when_it_was_read(
    tmp_path: Path, how: str
) -> None:
    made = Town(tmp_path)
    made.move("Rome")
    made.ingest(DAYS[0])
    made.move("Oslo")
    gap, night = DAYS[1:], made.night(DAYS[3])
    if how == "range":
        made.load(gap[0], gap[-1], ["ingest_data"], started=night)
    for key in gap if how == "forward" else gap[::-1] if how == "backwards" else []:
        made.ingest(key, at=night)
    assert made.towns(*DAYS) == ["Rome", "Rome", "Rome", "Oslo"]
    facts = [made.result("ingest_data", key).outputs["sources"]["people"] for key in DAYS]
    assert [fact["observed"] for fact in facts] == [made.night(DAYS[0]).isoformat()] * 3 + [
        night.isoformat()
    ]
    (made.folder / "people.csv").unlink()
    assert [made.ingest(key, at=night).digest for key in DAYS] == [
        made.result("ingest_data", key).digest for key in DAYS
    ]
    rows = made.lake.read("shop/raw/people").to_pylist()
    assert {(row["town"], row["arrived_at"].isoformat()[:10]) for row in rows} == {
        ("Rome", "2025-12-01"),
        ("Oslo", "2026-01-04"),
    }


@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backwards"])
def test_a_static_version_that_is_read_long_after_as_of_is_known_from_the_next_day(
    tmp_path: Path, order: int
) -> None:
    made = Town(tmp_path)
    made.move("Rome")
    made.ingest(DAYS[0])
    made.move("Oslo")
    report = made.ingest(DAYS[1], at=made.night(DAYS[1], timedelta(hours=6, minutes=1)))
    assert report.outputs["sources"]["people"]["pending"]["version"] == DAYS[2]
    # read for the first time by the newest day: the day before knows what was pending.
    made.move("Lima")
    for key in DAYS[2:][::order]:
        made.ingest(key, at=made.night(DAYS[3], timedelta(hours=6)))
    assert made.towns(*DAYS) == ["Rome", "Rome", "Oslo", "Lima"]
    assert made.ingest(DAYS[1], at=made.night(DAYS[3])).digest == report.digest


def test_days_that_are_not_the_newest_read_no_static_file(tmp_path: Path) -> None:
    made = Town(tmp_path)
    made.move("Rome")
    made.ingest(DAYS[2])
    (made.folder / "people.csv").unlink()
    for key in DAYS[:2]:
        made.ingest(key, at=made.night(DAYS[2]))
    assert made.towns(*DAYS[:3]) == ["Rome", "Rome", "Rome"]
    with pytest.raises(SourceError, match="matches no file"):
        made.ingest(DAYS[3])


def test_days_give_equal_digests_in_every_order_and_again(tmp_path: Path) -> None:
    """A static source that changes, a broken line and late rows at once, the same deliveries
    replayed.
    """
    found = []
    for how in ("forward", "backwards", "range"):
        made = Town(tmp_path / how)
        made.move("Rome")
        made.put(HEAD + line(1, "01 10:00"))
        made.ingest(DAYS[0])
        made.move("Oslo")
        rest = line(2, "02 10:00") + "BROKEN\n" + line(3, "03 10:00") + line(4, "04 10:00")
        made.put(HEAD + line(1, "01 10:00", "7") + line(9, "01 23:59") + rest)
        night = made.night(DAYS[3])
        if how == "range":
            made.load(DAYS[1], DAYS[3], ["ingest_data"], started=night)
        for key in DAYS[1:] if how == "forward" else DAYS[:0:-1] if how == "backwards" else []:
            made.ingest(key, at=night)
        found.append(([made.result("ingest_data", key).digest for key in DAYS], made.digests()))
        again = [made.ingest(key, at=night).digest for key in DAYS]
        assert (again, made.digests()) == found[-1]
        assert made.towns(*DAYS) == ["Rome", "Rome", "Rome", "Oslo"]
        assert [len(made.raw(key)) for key in DAYS] == [1, 2, 1, 3]
    assert found[0] == found[1] == found[2]


def test_a_source_that_is_declared_or_taken_out_later_is_on_the_audit_record(
    tmp_path: Path,
) -> None:
    made = Town(tmp_path)
    made.put(HEAD + line(1, "01 10:00"))
    made.move("Rome")
    made.ingest(DAYS[0])
    path = made.folder / "shop.yaml"
    whole = path.read_text()
    path.write_text(whole.replace(PEOPLE, "label:"))
    made.ingest(DAYS[0])
    path.write_text(whole)
    made.ingest(DAYS[0])
    told = [
        entry.details for entry in made.records.audit.entries("shop", action="partition.redeclared")
    ]
    assert sorted((one["added"], one["removed"]) for one in told) == [
        ([], ["people"]),
        (["people"], []),
    ]


def test_a_partition_whose_newest_row_is_old_blocks_where_the_source_says_so(
    tmp_path: Path,
) -> None:
    """At the bound and a microsecond beyond it; rows that come late make no partition fresher."""
    made = Intake(tmp_path, more="fresh: 6h")
    made.put(HEAD + line(1, "01 18:00:00") + line(2, "02 17:59:59.999999"))
    assert made.validate(DAYS[0]).state == "done"
    report = made.validate(DAYS[1])
    assert report.state == "blocked"
    assert "its newest row arrived 6.0 h before as_of, longer than fresh: 6h" in report.reason
    made.define()
    assert made.run("validate_data", DAYS[1]).state == "done", (
        "no source is held to freshness that does not ask for it"
    )
    made.define(more="fresh: 6h\n    empty: allow")
    with pytest.raises(ConfigError, match="fresh is for events that must come"):
        made.run("validate_data", DAYS[1])
