from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.errors import MissingPartition, RestatementRefused
from tests.builders.installation import Installation
from tests.builders.intake import GOOD, HEAD, Intake


def order(number: int, created: str, event: str = "2026-01-01T00:00:00Z", amount: str = "1") -> str:
    return f"{number},1,{event},{created},{amount},1\n"


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["order_id"] for row in rows)


def test_rows_belong_to_the_partition_in_whose_interval_they_arrive(made: Intake) -> None:
    """Fault 46: rows at each boundary, one microsecond before and after, belong to exactly one
    partition.
    """
    times = [
        "2025-12-31T23:59:59.999999Z",
        "2026-01-01T00:00:00Z",
        "2026-01-01T23:59:59.999999Z",
        "2026-01-02T00:00:00Z",
    ]
    made.put(HEAD + "".join(order(number, at) for number, at in enumerate(times)))
    made.ingest("2026-01-01")
    made.ingest("2026-01-02")
    assert ids(made.raw("2026-01-01")) == ["1", "2"]
    assert ids(made.raw("2026-01-02")) == ["3"]


def test_raw_rows_are_as_received_with_their_file_and_row(made: Intake) -> None:
    made.put(HEAD + "007, 1 ,2026-01-01,2026-01-01T05:00:00+02:00,1e400,yes\n")
    made.ingest()
    (row,) = made.raw("2026-01-01")
    assert (row["order_id"], row["customer_id"], row["amount"], row["paid"]) == (
        "007",
        " 1 ",
        "1e400",
        "yes",
    )
    assert (row["source_file"], row["source_row"], row["arrived_at"].isoformat()) == (
        "orders.csv",
        1,
        "2026-01-01T03:00:00+00:00",
    )


def test_a_row_without_a_readable_arrival_goes_with_the_row_before_it(made: Intake) -> None:
    times = ["", "2026-01-02T01:00:00Z", "31/02/2026", "2026-01-01T01:00:00Z", "", ""]
    made.put(HEAD + "".join(order(number, at) for number, at in enumerate(times)))
    for key in ("2026-01-01", "2026-01-02"):
        made.ingest(key)
    assert ids(made.raw("2026-01-01")) == ["3", "4", "5"]
    assert ids(made.raw("2026-01-02")) == ["0", "1", "2"]


def test_rows_of_a_file_without_any_arrival_belong_to_the_first_partition(made: Intake) -> None:
    made.put(HEAD + order(1, "never") + order(2, ""))
    assert made.ingest("2026-01-02").state == "blocked"
    made.ingest("2026-01-01")
    assert ids(made.raw("2026-01-01")) == ["1", "2"]


def test_equal_rows_again_change_nothing_in_whatever_order_and_file_they_come(made: Intake) -> None:
    first = made.ingest()
    versions = made.versions()
    made.put(
        HEAD + "".join(reversed(GOOD.splitlines(keepends=True))) + order(9, "2026-01-09T00:00:00Z")
    )
    assert made.ingest().digest == first.digest
    assert made.versions() == versions


def test_a_column_that_appears_later_changes_no_closed_partition(made: Intake) -> None:
    first = made.ingest()
    head = HEAD.strip() + ",note\n"
    made.put(
        head
        + GOOD.replace("1\n", "1,\n").replace("0\n", "0,\n")
        + "9,9,2026-01-09,2026-01-09,1,1,hello\n"
    )
    assert made.ingest().digest == first.digest


def test_other_rows_are_refused_with_the_difference_then_taken_with_a_reason(made: Intake) -> None:
    made.define(more="late: refuse")
    first = made.ingest()
    made.put(HEAD + GOOD.replace(",10,1", ",11,1") + order(5, "2026-01-01T12:00:00Z"))
    with pytest.raises(RestatementRefused, match=r"\+2 and -1 rows.*amount=11.*--restate REASON"):
        made.ingest()
    assert made.result("ingest_data", "2026-01-01").digest == first.digest
    assert len(made.raw("2026-01-01")) == 2
    taken = made.ingest(restate="the till was wrong")
    assert taken.digest != first.digest
    assert len(made.raw("2026-01-01")) == 3
    (entry,) = made.records.audit.entries("shop", action="partition.restated")
    assert (entry.subject, entry.details["reason"]) == ("2026-01-01", "the till was wrong")
    assert made.ingest().digest == taken.digest


def test_in_a_range_a_refused_partition_stops_itself_alone(made: Intake) -> None:
    made.ingest("2026-01-01")
    made.put(HEAD + GOOD.partition("\n")[2])
    with pytest.raises(RestatementRefused, match="2026-01-01"):
        made.load("2026-01-01", "2026-01-03", ["ingest_data"])
    assert [made.result("ingest_data", key).state for key in ("2026-01-02", "2026-01-03")] == [
        "done",
        "done",
    ]


def test_an_empty_partition_blocks_or_is_allowed_as_the_source_says(made: Intake) -> None:
    report = made.ingest("2026-01-04")
    assert report.state == "blocked"
    assert "no rows of orders arrived in 2026-01-04" in report.reason
    made.define(more="empty: allow")
    assert made.ingest("2026-01-04").state == "done"


def test_a_source_outside_its_own_history_is_neither_read_nor_expected(made: Intake) -> None:
    made.define(more="history: {first: 2026-01-02, last: 2026-01-02}")
    assert made.ingest("2026-01-01").outputs["sources"]["orders"]["expected"] is False
    assert made.ingest("2026-01-02").outputs["sources"]["orders"]["rows"] == 1
    assert made.ingest("2026-01-03").state == "done"


def test_only_the_named_sources_are_restated(made: Intake) -> None:
    text = (made.folder / "shop.yaml").read_text()
    more = (
        "  more:\n    path: more.csv\n    extra: ignore\n    key: [order_id]\n    columns: "
        "{order_id: {type: int64}}\nlabel:"
    )
    (made.folder / "shop.yaml").write_text(text.replace("label:", more, 1))
    made.put(HEAD + GOOD, "more.csv")
    made.ingest()
    for name in ("orders.csv", "more.csv"):
        made.put(HEAD + GOOD.replace("1,1,2026-01-01T10", "9,1,2026-01-01T10"), name)
    with pytest.raises(RestatementRefused, match=r"\(more: "):
        made.ingest(restate="the till was wrong", sources=["orders"])
    made.ingest(restate="both were wrong", sources=["orders", "more"])
    assert ids(made.raw("2026-01-01", "more")) == ["2", "9"]


def test_a_blocked_partition_records_only_what_the_lake_holds(made: Intake) -> None:
    """A source that did deliver is not written either: its rows must not count for later
    partitions' labels.
    """
    text = (made.folder / "shop.yaml").read_text()
    more = (
        "  more:\n    path: more.csv\n    extra: ignore\n    key: [order_id]\n    columns: "
        "{order_id: {type: int64}}\nlabel:"
    )
    (made.folder / "shop.yaml").write_text(text.replace("label:", more, 1))
    made.put(HEAD + GOOD.replace("2026-01-01", "2026-01-05"), "more.csv")
    report = made.ingest("2026-01-05")
    assert report.state == "blocked"
    assert {
        name: (fact["rows"], fact["digest"]) for name, fact in report.outputs["sources"].items()
    } == {
        "orders": (0, ""),
        "more": (0, ""),
    }
    assert made.tables() == []


def test_a_source_whose_history_is_narrowed_changes_a_record_only_with_a_reason(
    made: Intake,
) -> None:
    made.ingest()
    made.define(more="history: {first: 2026-01-02}")
    with pytest.raises(RestatementRefused, match=r"\+0 and -2 rows"):
        made.ingest()
    assert made.ingest(restate="it began later").outputs["sources"]["orders"]["expected"] is False
    assert made.raw("2026-01-01") == []


def test_a_range_day_by_day_and_backwards_give_equal_digests(tmp_path: Path) -> None:
    digests = []
    for how in ("range", "daily", "backwards"):
        made = Intake(tmp_path / how, more="empty: allow")
        made.put(HEAD + GOOD + order(7, "") + order(8, "2026-01-02T12:00:00+05:30"))
        keys = made.keys("2026-01-01", "2026-01-04")
        if how == "range":
            made.load(keys[0], keys[-1], ["ingest_data"])
        for key in keys if how == "daily" else keys[::-1] if how == "backwards" else []:
            made.ingest(key)
        digests.append([made.result("ingest_data", key).digest for key in keys])
    assert digests[0] == digests[1] == digests[2]


def test_a_lost_lake_partition_is_written_again(made: Intake, tmp_path: Path) -> None:
    import shutil

    made.ingest()
    shutil.rmtree(Path(made.lake.root) / "shop")
    again = Installation(tmp_path, "shop")
    assert again.run("ingest_data", "2026-01-01").state == "done"
    assert len(again.lake.read("shop/raw/orders")) == 2


def test_a_source_declared_later_is_asked_for_by_validation(made: Intake) -> None:
    made.ingest()
    text = (made.folder / "shop.yaml").read_text()
    more = (
        "  more:\n    path: orders.csv\n    extra: ignore\n    key: [order_id]\n    columns: "
        "{order_id: {type: int64}}\nlabel:"
    )
    (made.folder / "shop.yaml").write_text(text.replace("label:", more, 1))
    with pytest.raises(MissingPartition, match="before the sources"):
        made.run("validate_data", "2026-01-01")
    assert made.ingest().outputs["sources"]["more"]["rows"] == 2
    assert made.run("validate_data", "2026-01-01").state == "done"


def test_a_postgresql_source_is_taken_in_day_by_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres_url)
    with engine.begin() as link:
        link.exec_driver_sql(
            "CREATE TABLE orders (order_id int, customer_id int, event_timestamp timestamptz, "
            "created_timestamp timestamp, amount numeric(9,2), paid boolean)"
        )
        link.exec_driver_sql(
            "INSERT INTO orders SELECT n, mod(n, 3), t, t, n / 4.0, mod(n, 2) = 0 FROM (SELECT n, "
            "timestamp '2026-01-01' + n * interval '10 hours' AS t FROM generate_series(0, "
            "9) AS n) AS s"
        )
        link.exec_driver_sql("INSERT INTO orders VALUES (99, 1, now(), NULL, 1, true)")
    engine.dispose()
    monkeypatch.setenv("SHOP_DB", postgres_url)
    made = Intake(tmp_path)
    text = (
        (made.folder / "shop.yaml")
        .read_text()
        .replace(
            'path: "orders.csv"',
            "sql: {url_env: SHOP_DB, query: SELECT * FROM orders WHERE order_id % 1000 < 100}",
        )
    )
    (made.folder / "shop.yaml").write_text(text.replace('values: ["0", "1"]', "min: 0"))
    keys = made.keys("2026-01-01", "2026-01-04")
    daily = [made.ingest(key) for key in keys]
    assert [report.outputs["sources"]["orders"]["rows"] for report in daily] == [4, 2, 3, 2]
    assert "99" in ids(made.raw("2026-01-01"))
    assert [row["amount"] for row in made.raw("2026-01-02")] == ["0.75", "1.00"]
    ranged = Intake(tmp_path / "range")
    (ranged.folder / "shop.yaml").write_text((made.folder / "shop.yaml").read_text())
    assert [report.digest for report in ranged.load(keys[0], keys[-1], ["ingest_data"])] == [
        report.digest for report in daily
    ]
