from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.errors import MissingPartition, RestatementRefused, SourceError
from tests.builders import stored
from tests.builders.installation import Installation
from tests.builders.intake import GOOD, HEAD, Intake


def order(number: int, created: str, event: str = "2026-01-01T00:00:00Z", amount: str = "1") -> str:
    return f"{number},1,{event},{created},{amount},1\n"


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["order_id"] for row in rows)


@pytest.fixture
def made(tmp_path: Path) -> Intake:
    intake = Intake(tmp_path)
    intake.put(HEAD + GOOD)
    return intake


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


@pytest.mark.parametrize("partitioned", [False, True])
def test_an_assumed_arrival_follows_the_event(made: Intake, partitioned: bool) -> None:
    made.define(
        more='arrival: "event + 1d"', path="{partition}.csv" if partitioned else "orders.csv"
    )
    made.put(HEAD + "1,1,2026-01-01T23:59:59.999999Z,,1,1\n", "2026-01-02.csv")
    made.put(HEAD + "1,1,2026-01-01T23:59:59.999999Z,,1,1\n2,1,2026-01-02,,1,1\n")
    report = made.ingest("2026-01-02")
    assert report.outputs["sources"]["orders"]["arrival"] == "assumed"
    (row,) = made.raw("2026-01-02")
    assert row["arrived_at"].isoformat() == "2026-01-02T23:59:59.999999+00:00"


ASSUMED = "arrival: event + 0s\n    event_time: created_timestamp"


def late_files(made: Intake) -> tuple[str, str]:
    old = (
        HEAD
        + order(1, "2026-01-01T01:00:00Z")
        + order(2, "2026-01-02T01:00:00Z")
        + order(3, "2026-01-03T01:00:00Z")
    )
    return old, old + order(4, "2026-01-01T02:00:00Z")


def test_late_rows_of_an_assumed_arrival_are_refused_by_name(made: Intake) -> None:
    made.define(more=ASSUMED)
    old, new = late_files(made)
    made.put(old)
    made.ingest("2026-01-01")
    made.put(new)
    with pytest.raises(
        SourceError,
        match=r"1 rows belong to partitions that are closed "
        r"\(of 2026-01-01\).*order_id=4.*late: next",
    ):
        made.ingest("2026-01-02")
    with pytest.raises(RestatementRefused):
        made.ingest("2026-01-01")
    made.ingest("2026-01-01", restate="they came late")
    assert made.ingest("2026-01-02").state == "done"


def test_late_rows_enter_the_next_partition_once_and_the_closed_one_keeps_its_digest(
    made: Intake,
) -> None:
    """Fault 41: a late row lands in the partition in which it came."""
    made.define(more=ASSUMED + "\n    late: next")
    old, new = late_files(made)
    made.put(old)
    first = made.ingest("2026-01-01")
    made.put(new)
    second = made.ingest("2026-01-02")
    assert second.outputs["sources"]["orders"]["late"] == 1
    assert {row["order_id"]: row["arrived_at"].isoformat() for row in made.raw("2026-01-02")} == {
        "2": "2026-01-02T01:00:00+00:00",
        "4": "2026-01-02T00:00:00+00:00",
    }
    assert ids(made.raw("2026-01-01")) == ["1"]
    assert [made.ingest(key).digest for key in ("2026-01-01", "2026-01-02")] == [
        first.digest,
        second.digest,
    ]
    assert ids(made.raw("2026-01-03")) == []
    assert made.ingest("2026-01-03").outputs["sources"]["orders"]["late"] == 0


def test_a_partitions_own_file_belongs_to_it_whole(made: Intake) -> None:
    made.define(path="{partition}.csv")
    rows = (
        order(1, "2025-12-31T00:00:00Z")
        + order(2, "2026-01-01T05:00:00Z")
        + order(4, "x")
        + order(3, "2026-01-05T00:00:00Z")
    )
    made.put(HEAD + rows, "2026-01-01.csv")
    assert made.ingest("2026-01-01").outputs["sources"]["orders"]["rows"] == 4
    day = [row["arrived_at"].isoformat()[:10] for row in made.raw("2026-01-01")]
    assert day == ["2026-01-01"] * 4


STATIC = """
name: shop
history: {first: 2026-01-01}
entity: {name: customer, key: customer_id}
sources:
  people:
    kind: static
    path: people.csv
    valid_from: 2025-12-01
    key: [customer_id]
    columns: {customer_id: {type: int64}, town: {type: string}}
label: {source: people, column: customer_id, delay: 1d}
features:
  home: {sql: SELECT * FROM people, columns: {town: string}}
"""


def test_a_static_sources_versions_are_known_from_the_partition_that_first_read_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "usecases"
    folder.mkdir()
    (folder / "shop.yaml").write_text(STATIC)
    made = Installation(tmp_path, "shop")

    now = [night("2026-01-03")]

    def take(key: str, town: str) -> dict[str, Any]:
        now[0] = max(now[0], night(key))
        (folder / "people.csv").write_text(f"customer_id,town\n1,{town}\n")
        fact: dict[str, Any] = made.run("ingest_data", key, started=now[0]).outputs["sources"][
            "people"
        ]
        return fact

    first = take("2026-01-03", "Rome")
    assert first["version"] == "2026-01-01"
    assert take("2026-01-02", "Rome") == first
    # Older than what is ingested: it knows what was known to it.
    assert take("2026-01-01", "Oslo") == first
    assert take("2026-01-03", "Oslo") == first  # recorded
    second = take("2026-01-04", "Oslo")
    assert second["version"] == "2026-01-04"
    assert take("2026-01-05", "Oslo") == second
    assert take("2026-01-02", "Lima") == first
    rows = made.lake.read("shop/raw/people").to_pylist()
    assert {(row["town"], row["arrived_at"].isoformat()[:10]) for row in rows} == {
        ("Rome", "2025-12-01"),
        ("Oslo", "2026-01-04"),
    }


def night(key: str, hours: float = 0.1) -> datetime:
    """Return a moment after a day's `as_of`."""
    return datetime.fromisoformat(key).replace(tzinfo=UTC) + timedelta(days=1, hours=hours)


def restatable(home: Path) -> tuple[Installation, Path]:
    """Return an installation whose first version of a static source was wrong, and the source's
    file.
    """
    folder = home / "usecases"
    folder.mkdir(parents=True)
    (folder / "shop.yaml").write_text(STATIC)
    made, path = Installation(home, "shop"), folder / "people.csv"
    path.write_text("customer_id,town\n1,Rmoe\n")
    made.load("2026-01-01", "2026-01-03", ["ingest_data"])
    path.write_text("customer_id,town\n1,Oslo\n")
    made.run("ingest_data", "2026-01-04", started=night("2026-01-04"))
    return made, path


def test_a_wrong_static_version_is_restated_by_name_with_a_reason(tmp_path: Path) -> None:
    made, path = restatable(tmp_path)
    before = {key: made.result("ingest_data", key) for key in made.keys("2026-01-01", "2026-01-04")}
    path.write_text("customer_id,town\n1,Rome\n")

    def ingest(key: str, **options: Any) -> dict[str, Any]:
        fact: dict[str, Any] = made.run("ingest_data", key, options=options).outputs["sources"][
            "people"
        ]
        return fact

    # Not named.
    assert (
        ingest("2026-01-02", restate="other rows")
        == before["2026-01-02"].outputs["sources"]["people"]
    )
    with pytest.raises(
        RestatementRefused, match=r"town=Rome.*town=Rmoe.*--restate REASON --source people"
    ):
        ingest("2026-01-02", sources=["people"])
    assert made.records.audit.entries("shop", action="partition.restated") == []
    fact = ingest("2026-01-02", sources=["people"], restate="it was misspelt")
    assert (fact["version"], fact["restated"]) == ("2026-01-01", 1)
    rows = made.lake.read("shop/raw/people").to_pylist()
    assert {(row["town"], row["arrived_at"].isoformat()[:10]) for row in rows} == {
        ("Rome", "2025-12-01"),
        ("Oslo", "2026-01-04"),
    }
    (entry,) = made.records.audit.entries("shop", action="partition.restated")
    assert entry.details["reason"] == "it was misspelt"
    told = entry.details["sources"]["people"]
    assert (told["version"], told["stale"]) == ("2026-01-01", ["2026-01-01", "2026-01-03"])
    assert ingest("2026-01-02", sources=["people"]) == fact  # the same again changes nothing
    path.write_text("customer_id,town\n1,Oslo\n")
    assert [ingest(key) for key in ("2026-01-03", "2026-01-01")] == [fact, fact]
    assert ingest("2026-01-04") == before["2026-01-04"].outputs["sources"]["people"]
    assert ingest("2026-01-05")["version"] == "2026-01-04"


def test_what_knows_a_restated_static_version_is_stale_until_it_runs_again(tmp_path: Path) -> None:
    from include.pipeline.status import status_rows

    made, path = restatable(tmp_path)
    text = (tmp_path / "usecases" / "shop.yaml").read_text()
    text = text.replace(
        "source: people, column: customer_id",
        "sql: 'SELECT customer_id, CAST(NULL AS TIMESTAMPTZ) AS event_timestamp, CAST(NULL AS "
        "TIMESTAMPTZ) AS label_timestamp, 1 AS label FROM people WHERE false'",
    )
    (tmp_path / "usecases" / "shop.yaml").write_text(text)
    keys = made.keys("2026-01-01", "2026-01-04")
    made.load(keys[0], keys[-1], ["validate_data"])
    path.write_text("customer_id,town\n1,Rome\n")
    made.run(
        "ingest_data", "2026-01-02", options={"sources": ["people"], "restate": "it was misspelt"}
    )

    def stale() -> list[str]:
        return [row.key for row in status_rows(made.records, made.use_case) if row.kind == "stale"]

    assert stale() == keys[:3]
    path.write_text("customer_id,town\n1,Oslo\n")
    made.load(keys[2], keys[2], ["ingest_data", "validate_data"])
    assert stale() == keys[:2]
    assert {
        row["town"]
        for row in made.lake.read(
            stored.table(made.lake, "shop/curated/people"), keys=["2026-01-01"]
        ).to_pylist()
    } == {"Rome"}
    made.load(keys[0], keys[1], ["ingest_data", "validate_data"])
    assert stale() == []
    assert len({made.result("ingest_data", key).digest for key in keys[:3]}) == 1


def test_nothing_is_restated_of_a_partition_that_is_not_ingested(tmp_path: Path) -> None:
    made, _ = restatable(tmp_path)
    with pytest.raises(SourceError, match="knows no version of people to restate"):
        made.run("ingest_data", "2026-01-05", options={"sources": ["people"], "restate": "x"})


def test_a_lost_static_version_is_written_again_and_never_silently_replaced(tmp_path: Path) -> None:
    import shutil

    made, path = restatable(tmp_path)
    shutil.rmtree(Path(made.lake.root) / "shop")
    again = Installation(tmp_path, "shop")
    with pytest.raises(RestatementRefused, match="--source people"):
        again.run("ingest_data", "2026-01-02")
    path.write_text("customer_id,town\n1,Rmoe\n")
    assert (
        again.run("ingest_data", "2026-01-02").digest
        == made.result("ingest_data", "2026-01-01").digest
    )
    assert again.lake.read("shop/raw/people").column("town").to_pylist() == ["Rmoe"]


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


def test_a_missing_arrival_column_is_refused_with_a_suggestion(made: Intake) -> None:
    made.put(HEAD.replace("created_timestamp", "created_timestmp") + GOOD)
    with pytest.raises(
        SourceError, match=r"'created_timestamp' says when a row arrives.*created_timestmp"
    ) as error:
        made.ingest()
    assert "orders.csv" in str(error.value)
    assert made.tables() == []


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
