"""Quarantined rows that a person gives to a later partition: taken once, seen by no earlier day,
the same in every order.
"""

from __future__ import annotations

import csv
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.errors import Busy, ConfigError, Conflict
from include.lake.sql import connect
from include.point_in_time.partitions import period
from include.point_in_time.views import AsOfViews
from include.validation import quarantine
from include.validation import redrive as redriving
from tests.builders.installation import Installation
from tests.builders.intake import COLUMNS, HEAD, Intake

AT = datetime(2026, 2, 1, tzinfo=UTC)
ROWS = (
    "1,1,2026-01-01T10:00:00Z,2026-01-01T10:00:00Z,10,1\n"
    "2,2,2026-01-01T11:00:00Z,2026-01-01T11:00:00Z,oops,0\n"
    "3,3,2026-01-01T12:00:00Z,2026-01-01T12:00:00Z,300,1\n"
    "4,1,2026-01-02T10:00:00Z,2026-01-02T10:00:00Z,40,1\n"
    "5,2,2026-01-03T10:00:00Z,2026-01-03T10:00:00Z,50,0\n"
    "6,2,2026-01-04T10:00:00Z,2026-01-04T10:00:00Z,60,0\n"
    "7,2,2026-01-05T10:00:00Z,2026-01-05T10:00:00Z,70,0\n"
)
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04", "2026-01-05"]
LOOSE = "max_bad: 1.0"
STRICT = COLUMNS.replace("amount: {type: float64}", "amount: {type: float64, max: 100}")


class Till(Intake):
    """Two days are taken in; two rows of the first failed."""

    def __init__(self, home: Path, more: str = LOOSE) -> None:
        there = (home / "usecases").exists()
        Installation.__init__(self, home, "shop") if there else super().__init__(
            home, more=more, columns=STRICT
        )
        self.folder = home / "usecases"
        if not there:
            self.put(HEAD + ROWS)
            self.load(DAYS[0], DAYS[1], ["ingest_data", "validate_data"])

    def plan(self, **chosen: Any) -> redriving.Plan:
        chosen = {"partition": DAYS[0]} | chosen if "file" not in chosen else chosen
        return redriving.plan(self.settings, self.records, self.use_case, **chosen)

    def redrive(self, reason: str = "the till wrote words", **chosen: Any) -> redriving.Plan:
        plan = self.plan(**chosen)
        redriving.redrive(
            self.settings, self.records, self.use_case, plan, reason=reason, actor="ann", at=AT
        )
        return plan

    def mend(self) -> redriving.Plan:
        return self.redrive(rule="amount: not_float64", changes={"amount": "20"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("till")
    Till(home).records.close()
    return home


@pytest.fixture
def till(made: Path, tmp_path: Path) -> Till:
    return copy(made, tmp_path / "home")


def copy(made: Path, home: Path) -> Till:
    shutil.copytree(made, home)
    return Till(home)


def test_a_mended_row_enters_the_next_partition_and_its_own_keeps_its_digest(till: Till) -> None:
    before = {key: till.digests([key]) for key in DAYS[:2]}
    assert till.mend().into == DAYS[2]
    report = till.validate(DAYS[2])
    assert (report.outputs["verdict"], report.outputs["sources"]["orders"]["rows"]) == ("pass", 2)
    rows = {row["order_id"]: row for row in till.curated(DAYS[2])}
    assert (rows[2]["amount"], rows[2]["event_timestamp"]) == (
        20.0,
        datetime(2026, 1, 1, 11, tzinfo=UTC),
    )
    assert rows[2]["created_timestamp"] == datetime(2026, 1, 3, tzinfo=UTC)
    fact = till.result("ingest_data", DAYS[2]).outputs["sources"]["orders"]
    assert (fact["rows"], fact["redriven"], fact["files"]) == (2, 1, ["orders.csv"])
    assert {row["source_file"] for row in till.raw(DAYS[2])} == {
        "orders.csv",
        "redriven://2026-01-01/orders.csv",
    }
    for key in DAYS[:2]:
        till.validate(key)
        assert till.digests([key]) == before[key]


def test_no_earlier_as_of_sees_a_redriven_row(till: Till) -> None:
    """I1: it was known when the partition that took it began, whenever it happened."""
    till.mend()
    till.validate(DAYS[2])
    views = AsOfViews(connect(alone=True), till.lake, till.use_case, keys=DAYS[:3])
    seen = {}
    for key in DAYS[:3]:
        views.at(period(till.use_case, key), till.use_case.label.lookback)
        seen[key] = 2 in views.query("SELECT order_id FROM orders").column("order_id").to_pylist()
    assert seen == {DAYS[0]: False, DAYS[1]: False, DAYS[2]: True}


def test_a_rerun_takes_the_same_rows_and_the_source_digest_tells_them(till: Till) -> None:
    plain = till.result("ingest_data", DAYS[1]).outputs["sources"]["orders"]["source_digest"]
    till.mend()
    first = till.ingest(DAYS[2])
    versions = till.versions()
    again = till.ingest(DAYS[2])
    assert (again.digest, again.outputs) == (first.digest, first.outputs)
    assert first.outputs["sources"]["orders"]["source_digest"] != plain
    assert till.run("ingest_data", DAYS[2], force=True).reason == "equal to the record"
    assert till.versions() == versions
    assert "redriven" not in till.ingest(DAYS[3]).outputs["sources"]["orders"]


def test_a_listing_holds_the_first_rows_and_cuts_their_values(till: Till) -> None:
    """A quarantine of any size can be looked at: what is not shown is not read into memory."""
    long = "x" * 100_000
    extra = "".join(
        f"{n},1,2026-01-03T10:00:00Z,2026-01-03T10:00:00Z,{long},1\n" for n in range(10, 30)
    )
    till.put(HEAD + ROWS + extra)
    till.validate(DAYS[2])
    rows = quarantine.found(till.settings, till.records, till.use_case, limit=5)
    assert [(row.partition, row.row) for row in rows] == [
        (DAYS[0], 2),
        (DAYS[0], 3),
        (DAYS[2], 8),
        (DAYS[2], 9),
        (DAYS[2], 10),
    ]
    assert max(len(value) for row in rows for value in row.values.values()) == quarantine.SHOWN
    counts = quarantine.rules(till.settings, till.use_case)
    assert counts == {"amount: above_max": 1, "amount: not_float64": 21}
    assert (
        len(quarantine.found(till.settings, till.records, till.use_case, rule="amount: above_max"))
        == 1
    )


def test_a_range_day_by_day_and_backwards_give_equal_digests(made: Path, tmp_path: Path) -> None:
    found = []
    for how in ("range", "daily", "backwards"):
        till = copy(made, tmp_path / how)
        till.mend()
        rest = DAYS[2:]
        if how == "range":
            till.load(rest[0], rest[-1])
        for stage in (
            ("ingest_data", "validate_data", "materialize_features") if how != "range" else ()
        ):
            for key in rest if how == "daily" else rest[::-1]:
                till.run(stage, key)
        found.append(till.digests())
        assert [
            till.result("ingest_data", key).outputs["sources"]["orders"].get("redriven", 0)
            for key in rest
        ] == [1, 0, 0]
    assert found[0] == found[1] == found[2]


def test_a_row_is_redriven_once_and_only_if_it_would_pass(till: Till) -> None:
    with pytest.raises(
        ConfigError,
        match=r"2 of 2 rows of orders would fail again.*row 2: amount: not_float64.*--set",
    ):
        till.plan()
    with pytest.raises(ConfigError, match=r"1 of 1 rows.*amount: above_max"):
        till.plan(rule="amount: above_max", changes={"amount": "101"})
    till.mend()
    with pytest.raises(ConfigError, match="all 1 chosen rows are redriven already"):
        till.mend()
    late = till.plan(rule="amount: above_max", changes={"amount": "30"})
    assert (late.before, late.corrected, late.into) == (0, 1, DAYS[2])
    with pytest.raises(
        ConfigError,
        match=r"no quarantined row is chosen.*'amount: above_max', 'amount: not_float64'",
    ):
        till.plan(rule="amount: below_min")
    with pytest.raises(ConfigError, match="no column 'amuont' to set"):
        till.plan(changes={"amuont": "1"})
    with pytest.raises(ConfigError, match="no source 'order'"):
        till.plan(source="order")


def test_two_at_once_record_a_row_once(till: Till) -> None:
    plans = [
        till.plan(rule="amount: not_float64", changes={"amount": amount}) for amount in ("20", "21")
    ]
    redriving.redrive(
        till.settings, till.records, till.use_case, plans[0], reason="a", actor="ann", at=AT
    )
    with pytest.raises(Conflict, match="redriven already"):
        redriving.redrive(
            till.settings, till.records, till.use_case, plans[1], reason="b", actor="bob", at=AT
        )
    assert len(till.records.audit.entries("shop", action="quarantine.redriven")) == 1
    till.validate(DAYS[2])
    assert {row["order_id"]: row["amount"] for row in till.curated(DAYS[2])} == {5: 50.0, 2: 20.0}


def test_a_partition_that_is_being_or_was_ingested_meanwhile_takes_nothing(till: Till) -> None:
    plan = till.plan(rule="amount: not_float64", changes={"amount": "20"})

    def act() -> Any:
        return redriving.redrive(
            till.settings, till.records, till.use_case, plan, reason="x", actor="ann", at=AT
        )

    with (
        till.records.leases.claim("shop", "ingest_data", DAYS[2], owner="other", attempt=1, ttl=30),
        pytest.raises(Busy),
    ):
        act()
    till.ingest(DAYS[2])
    with pytest.raises(
        Conflict, match=rf"{DAYS[2]} was ingested meanwhile; redrive again, into {DAYS[3]}"
    ):
        act()
    assert till.records.audit.entries("shop", action="quarantine.redriven") == []
    assert till.mend().into == DAYS[3]


def test_who_why_and_which_are_on_the_audit_record(till: Till) -> None:
    till.mend()
    (entry,) = till.records.audit.entries("shop", action="quarantine.redriven")
    assert (entry.actor, entry.subject, entry.details["reason"]) == (
        "ann",
        DAYS[2],
        "the till wrote words",
    )
    assert (entry.details["which"], entry.details["corrected"]) == (
        [["orders", DAYS[0], "orders.csv", 2]],
        1,
    )
    assert till.records.audit.verify() is None
    with pytest.raises(ConfigError, match="needs a reason"):
        till.redrive(reason="  ", rule="amount: above_max", changes={"amount": "30"})


def test_a_contract_that_was_too_strict_needs_no_correction(till: Till) -> None:
    """And a naive row among aware ones neither fails nor makes others fail."""
    till.define(more=LOOSE)
    plan = till.redrive(rule="amount: above_max")
    assert (plan.corrected, plan.into) == (0, DAYS[2])
    till.redrive(
        rule="amount: not_float64",
        changes={"amount": "1", "event_timestamp": "2026-01-01 11:00:00"},
    )
    till.validate(DAYS[2])
    assert (sorted(row["order_id"] for row in till.curated(DAYS[2])), till.rules(DAYS[2])) == (
        [2, 3, 5],
        {},
    )


def test_redriven_rows_do_not_hide_that_nothing_was_delivered(till: Till) -> None:
    till.mend()
    till.put(
        HEAD + "".join(line for line in ROWS.splitlines(keepends=True) if not line.startswith("5,"))
    )
    assert till.ingest(DAYS[2]).state == "blocked"
    assert till.raw(DAYS[2]) == []
    till.put(HEAD + ROWS)
    assert till.ingest(DAYS[2]).outputs["sources"]["orders"]["redriven"] == 1


def test_an_assumed_arrival_takes_them_too_and_no_closed_partition_changes(tmp_path: Path) -> None:
    till = Till(
        tmp_path, more=f"{LOOSE}\n    arrival: event + 1h\n    late: next\n    extra: ignore"
    )
    first = [till.result("ingest_data", key).digest for key in DAYS[:2]]
    till.define(more=f"{LOOSE}\n    arrival: event + 1h\n    late: next\n    extra: ignore")
    till.redrive(rule="amount: above_max")
    taken = [till.ingest(key).digest for key in DAYS[2:4]]
    assert till.result("ingest_data", DAYS[2]).outputs["sources"]["orders"]["late"] == 0
    assert [till.ingest(key).digest for key in DAYS[:4]] == first + taken
    till.run("validate_data", DAYS[2])
    assert {row["order_id"] for row in till.curated(DAYS[2])} == {3, 5}


def test_a_history_that_is_closed_has_no_later_partition(till: Till) -> None:
    path = till.folder / "shop.yaml"
    path.write_text(
        path.read_text().replace("first: 2026-01-01", "first: 2026-01-01, last: 2026-01-02")
    )
    with pytest.raises(ConfigError, match=r"ends with 2026-01-02.*--restate REASON"):
        till.mend()


def test_a_csv_is_corrected_by_hand_and_read_back(till: Till, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    rows = quarantine.found(till.settings, till.records, till.use_case)
    assert quarantine.export(rows, till.use_case, path) == 2
    lines = list(csv.DictReader(path.open()))
    assert [(line["source_row"], line["rule"], line["amount"], line["paid"]) for line in lines] == [
        ("2", "amount: not_float64", "oops", "0"),
        ("3", "amount: above_max", "300", "1"),
    ]
    lines[0]["amount"] = "22.5"
    write(path, lines[:1])
    plan = till.redrive(file=path)
    assert (plan.corrected, plan.counts()) == (1, [(DAYS[0], "orders", 1)])
    rows = quarantine.found(till.settings, till.records, till.use_case)
    assert [row.into for row in rows] == [DAYS[2], None]
    assert quarantine.export(rows, till.use_case, tmp_path / "rest.csv") == 1
    with pytest.raises(
        ConfigError, match=f"row 2 of orders.csv .* is redriven already, into {DAYS[2]}"
    ):
        till.plan(file=path)
    till.validate(DAYS[2])
    assert {row["order_id"]: row["amount"] for row in till.curated(DAYS[2])} == {5: 50.0, 2: 22.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source_row": "9"}, "line 2: no quarantined row .*source_row=9"),
        ({"source_row": "x"}, "line 2: no quarantined row"),
        ({"note": "hi"}, "declares no column 'note'"),
        ({"rule": None}, "would fail again"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_by_its_line(
    till: Till, tmp_path: Path, change: dict[str, str], said: str
) -> None:
    path = tmp_path / "bad.csv"
    quarantine.export(
        quarantine.found(till.settings, till.records, till.use_case), till.use_case, path
    )
    lines = [line | change for line in csv.DictReader(path.open())][:1]
    write(path, lines)
    with pytest.raises(ConfigError, match=said):
        till.plan(file=path)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b'partition,"source\n'])
def test_what_is_no_csv_of_the_quarantine_is_refused(
    till: Till, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.csv: (the columns|cannot be read)"):
        till.plan(file=path)


def test_a_cell_that_looks_like_a_formula_is_guarded_and_comes_back_as_it_was(
    tmp_path: Path,
) -> None:
    values = ["=1+1", "+3", "-5.5", "@x", "'quoted", "''", "\ttab", "plain"]
    made = Intake(tmp_path, more=LOOSE, columns=COLUMNS + "\n      note: {type: string}")
    body = "".join(
        f'{n},1,2026-01-01,2026-01-01,x,1,"{value}"\n' for n, value in enumerate(values, start=1)
    )
    made.put(HEAD.strip() + ",note\n" + body)
    made.validate()
    path = tmp_path / "bad.csv"
    rows = quarantine.found(made.settings, made.records, made.use_case)
    quarantine.export(rows, made.use_case, path)
    lines = list(csv.DictReader(path.open(newline="")))
    assert [line["note"] for line in lines] == [
        "'=1+1",
        "+3",
        "-5.5",
        "'@x",
        "''quoted",
        "'''",
        "'\ttab",
        "plain",
    ]
    write(path, [line | {"amount": "1", "note": line["note"]} for line in lines])
    back = quarantine.corrected(path, {row.place: row for row in rows}, made.use_case)
    assert [given["note"] for given in back.values()] == values
    lines[-1]["note"], lines[-2]["note"] = "'=new", ""
    write(path, lines)
    back = quarantine.corrected(path, {row.place: row for row in rows}, made.use_case)
    assert [given.get("note") for given in back.values()][-2:] == [None, "=new"]


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(lines[0]))
        out.writeheader()
        out.writerows(lines)
