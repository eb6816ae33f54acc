from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigError, MissingPartition
from tests.builders import stored
from tests.builders.intake import COLUMNS, GOOD, HEAD, Intake

TYPES = """
      id: {type: int64, nullable: false}
      whole: {type: int64, min: 0, max: 100}
      real: {type: float64}
      flag: {type: bool}
      day: {type: date}
      at: {type: timestamp}
      colour: {type: string, values: [red, "it's"], regex: "[a-z']+"}
      code: {type: string, regex: "[A-Z]{2}"}"""
TYPED = "id,whole,real,flag,day,at,colour,code,event_timestamp,created_timestamp,customer_id,paid\n"
SOUND = {
    "whole": "1",
    "real": "1.5",
    "flag": "true",
    "day": "2026-01-01",
    "at": "2026-01-01T00:00:00Z",
    "colour": "red",
    "code": "AB",
    "event_timestamp": "2026-01-01T10:00:00Z",
    "created_timestamp": "2026-01-01T11:00:00Z",
    "customer_id": "1",
    "paid": "1",
}
PAID = "\n      customer_id: {type: int64}\n      paid: {type: int64}"


def typed(path: Path, changes: list[dict[str, str]], more: str = "") -> Intake:
    """Validate one row for each dictionary of changes to a sound one; rows are numbered from 1."""
    made = Intake(path, columns=TYPES + PAID, more=f"max_bad: 1\n    {more}")
    text = (made.folder / "shop.yaml").read_text().replace("key: [order_id]", "key: [id]")
    (made.folder / "shop.yaml").write_text(text.replace("sum(amount)", "sum(real)"))
    lines = [
        ",".join({"id": str(index), **SOUND, **change}[name] for name in TYPED.strip().split(","))
        for index, change in enumerate(changes, 1)
    ]
    made.put(TYPED + "\n".join(lines) + "\n")
    made.validate()
    return made


BAD = [
    ({"id": ""}, "id: null"),
    ({"id": "1e3"}, "id: not_int64"),
    ({"id": "9223372036854775808"}, "id: not_int64"),
    ({"whole": "1_000"}, "whole: not_int64"),
    ({"whole": "1.5"}, "whole: not_int64"),
    ({"whole": "0x10"}, "whole: not_int64"),
    ({"whole": "-1"}, "whole: below_min"),
    ({"whole": "101"}, "whole: above_max"),
    ({"real": "abc"}, "real: not_float64"),
    ({"real": "1_0"}, "real: not_float64"),
    ({"real": "1e400"}, "real: not_finite"),
    ({"real": "-inf"}, "real: not_finite"),
    ({"real": "NaN"}, "real: not_finite"),
    ({"flag": "maybe"}, "flag: not_bool"),
    ({"day": "2026-02-30"}, "day: not_date"),
    ({"day": "2026-1-1"}, "day: not_date"),
    ({"day": "9999-12-31"}, "day: out_of_range"),
    ({"at": "epoch"}, "at: not_timestamp"),
    ({"at": "1700000000"}, "at: not_timestamp"),
    ({"at": "2300-01-01T00:00:00Z"}, "at: out_of_range"),
    ({"colour": "blue"}, "colour: not_allowed"),
    ({"code": "ABC"}, "code: no_match"),
    ({"event_timestamp": ""}, "event_timestamp: null"),
    ({"event_timestamp": "31/12/2025"}, "event_timestamp: not_timestamp"),
    ({"event_timestamp": "1970-01-01T00:00:00Z"}, "event_timestamp: epoch_zero"),
    ({"event_timestamp": "9999-12-31T00:00:00Z"}, "event_timestamp: out_of_range"),
    ({"event_timestamp": "2026-01-02T00:00:00Z"}, "event_timestamp: in_future"),
    ({"event_timestamp": "2026-01-01T10:00:00"}, "event_timestamp: mixed_time_zones"),
    ({"created_timestamp": ""}, "created_timestamp: null"),
    ({"created_timestamp": "soon"}, "created_timestamp: not_timestamp"),
]


def test_each_bad_value_is_quarantined_by_the_rule_that_it_fails(tmp_path: Path) -> None:
    """Faults 38, 39, 44."""
    made = typed(tmp_path, [{}, *(change for change, _ in BAD), {}])
    assert made.rules("2026-01-01") == {index: rule for index, (_, rule) in enumerate(BAD, 2)}
    result = made.result("validate_data", "2026-01-01")
    fact = result.outputs["sources"]["orders"]
    assert (result.outputs["verdict"], fact["rows"], fact["quarantined"], fact["duplicates"]) == (
        "quarantine",
        2,
        len(BAD),
        0,
    )
    kept = made.lake.read("shop/quarantine/orders").to_pylist()
    assert {
        (row["source_file"], row["real"]) for row in kept if row["rule"] == "real: not_finite"
    } == {
        ("orders.csv", "1e400"),
        ("orders.csv", "-inf"),
        ("orders.csv", "NaN"),
    }


def test_odd_but_sound_values_are_read_as_what_they_say(tmp_path: Path) -> None:
    changes = [
        {"whole": " 7 ", "real": "-0", "flag": "NO", "day": "2024-02-29", "colour": "it's"},
        {
            "whole": "8.0",
            "real": "5e-324",
            "flag": "1",
            "day": "2026-01-01 00:00:00",
            "at": "2026-01-01 05:30:00.123456789+05:30",
        },
        {
            "whole": "",
            "real": ".5",
            "flag": "",
            "day": "",
            "at": "2026-01-01",
            "colour": "",
            "code": "",
        },
        {"event_timestamp": "2026-01-01T23:59:59.999999+00", "at": "2026-01-01T00:00Z"},
        {"event_timestamp": "1969-07-20T20:17:00Z", "real": "12345678901234567890123"},
    ]
    made = typed(tmp_path, changes)
    assert made.rules("2026-01-01") == {}
    rows = {row["id"]: row for row in made.curated("2026-01-01")}
    assert (
        rows[1]["whole"],
        str(rows[1]["real"]),
        rows[1]["flag"],
        rows[1]["day"].isoformat(),
    ) == (
        7,
        "0.0",
        False,
        "2024-02-29",
    )
    assert (rows[2]["whole"], rows[2]["real"], rows[2]["flag"]) == (8, 5e-324, True)
    assert rows[2]["at"] == datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
    assert [rows[3][name] for name in ("whole", "real", "flag", "day", "colour")] == [
        None,
        0.5,
        None,
        None,
        None,
    ]
    assert rows[5]["real"] == 1.2345678901234568e22


def test_times_without_an_offset_are_in_the_sources_zone_and_never_ambiguous(
    tmp_path: Path,
) -> None:
    """Fault 43: the hour that comes twice, and the one that does not come, are no times."""
    made = Intake(
        tmp_path, more="max_bad: 1\n    timezone: Europe/Berlin\n    history: {first: 2026-03-29}"
    )
    text = (
        (made.folder / "shop.yaml")
        .read_text()
        .replace("history: {first: 2026-01-01}", "history: {first: 2025-10-26}")
    )
    (made.folder / "shop.yaml").write_text(text.replace("    history: {first: 2026-03-29}\n", ""))
    events = ["2025-10-26T01:30:00", "2025-10-26T02:30:00", "2025-10-26T03:30:00"]
    made.put(
        HEAD
        + "".join(
            f"{index},1,{event},2025-10-26T12:00:00,1,1\n" for index, event in enumerate(events, 1)
        )
    )
    made.validate("2025-10-26")
    assert made.rules("2025-10-26") == {2: "event_timestamp: ambiguous_time"}
    assert [row["event_timestamp"].hour for row in made.curated("2025-10-26")] == [23, 2]
    made.put(
        HEAD + "1,1,2026-03-29T02:30:00,2026-03-29T12:00:00,1,1\n"
        "2,1,2026-03-29T03:30:00,2026-03-29T12:00:00,1,1\n"
    )
    made.validate("2026-03-29")
    assert made.rules("2026-03-29") == {1: "event_timestamp: ambiguous_time"}


def test_a_date_is_midnight_or_the_end_of_its_day_as_the_source_says(tmp_path: Path) -> None:
    line = "1,1,2026-01-01,2026-01-01,1,1\n"
    for means, expected in (
        ("start_of_day", "2026-01-01T00:00:00+00:00"),
        ("end_of_day", "2026-01-01T23:59:59.999999+00:00"),
    ):
        made = Intake(tmp_path / means, more=f"date_means: {means}")
        made.put(HEAD + line)
        made.validate()
        (row,) = made.curated("2026-01-01")
        assert (row["event_timestamp"].isoformat(), row["created_timestamp"].isoformat()) == (
            expected,
            expected,
        )


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


def test_late_rows_of_a_partitions_own_file_are_quarantined_or_taken_as_they_come(
    tmp_path: Path,
) -> None:
    content = (
        HEAD + "1,1,2025-12-30,2025-12-31T10:00:00Z,1,1\n2,1,2026-01-01,2026-01-01T10:00:00Z,1,1\n"
        "3,1,2026-01-01,2026-01-03,1,1\n"
    )
    made = Intake(tmp_path / "refuse", path="{partition}.csv", more="max_bad: 1\n    late: refuse")
    made.put(content, "2026-01-01.csv")
    made.validate()
    assert made.rules("2026-01-01") == {
        1: "created_timestamp: late",
        3: "created_timestamp: in_future",
    }
    made = Intake(tmp_path / "next", path="{partition}.csv", more="max_bad: 1")
    made.put(content, "2026-01-01.csv")
    made.validate()
    assert made.rules("2026-01-01") == {3: "created_timestamp: in_future"}
    assert [row["created_timestamp"].isoformat() for row in made.curated("2026-01-01")] == [
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T10:00:00+00:00",
    ]


@pytest.fixture
def made(tmp_path: Path) -> Intake:
    intake = Intake(tmp_path)
    intake.put(HEAD + GOOD)
    return intake


def test_a_sound_partition_passes_with_result_and_page(made: Intake) -> None:
    report = made.validate()
    assert (report.state, report.outputs["verdict"], report.reason) == ("done", "pass", "")
    folder = Path(report.outputs["report"])
    result = json.loads((folder / "result.json").read_text())
    assert result["success"] is True
    assert result["statistics"]["evaluated_expectations"] == len(result["results"]) > 8
    page = (folder / "index.html").read_text()
    assert "<title>shop 2026-01-01</title>" in page
    assert "share of bad rows" in page


def test_a_blocked_partition_leaves_nothing_but_its_quarantine(made: Intake) -> None:
    """Fault 37a: above max_bad the partition blocks; the reason names rule, sample, file and
    row.
    """
    made.validate()
    assert len(made.curated("2026-01-01")) == 2
    made.put(HEAD + GOOD.replace(",20,0", ",abc,0"))
    made.ingest(restate="again")
    report = made.run("validate_data", "2026-01-01")
    assert (report.state, report.outputs["verdict"]) == ("blocked", "block")
    for said in (
        "1 of 2 rows are bad, more than max_bad 1.00%",
        "amount: not_float64 (1 rows, such as 'abc'; orders.csv row 2)",
    ):
        assert said in report.reason
    assert made.curated("2026-01-01") == []
    assert made.rules("2026-01-01") == {2: "amount: not_float64"}
    assert len(made.lake.read(stored.table(made.lake, "shop/labels"), keys=["2026-01-01"])) == 0
    made.define(more="max_bad: 0.5")
    again = made.run("validate_data", "2026-01-01")
    assert (again.state, again.outputs["verdict"]) == ("done", "quarantine")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("min_rows: 3", "2 rows came, expected are 3 to any number"),
        ("max_rows: 1", "2 rows came, expected are 1 to 1"),
    ],
)
def test_the_row_count_has_its_band(made: Intake, more: str, said: str) -> None:
    made.define(more=more)
    report = made.validate()
    assert report.state == "blocked"
    assert said in report.reason


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


def suite(made: Intake, *expectations: dict[str, Any]) -> None:
    made.put(json.dumps({"expectations": list(expectations)}), "expectations/shop.json")


def test_a_persons_suite_blocks_or_warns_and_is_part_of_the_memo(made: Intake) -> None:
    assert made.validate().state == "done"
    low = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "amount", "max_value": 15},
    }
    suite(made, {**low, "severity": "warning"})
    warned = made.run("validate_data", "2026-01-01")
    assert (warned.state, warned.reused) == ("done", False)
    result = json.loads((Path(warned.outputs["report"]) / "result.json").read_text())
    assert result["success"] is False
    suite(made, low)
    report = made.run("validate_data", "2026-01-01")
    assert report.state == "blocked"
    assert "expect_column_values_to_be_between" in report.reason
    suite(made, {"type": "expect_nothing_like_it"})
    with pytest.raises(ConfigError, match="the suite of orders is refused"):
        made.run("validate_data", "2026-01-01")
    made.put("[]", "expectations/shop.json")
    with pytest.raises(ConfigError, match="is no suite"):
        made.run("validate_data", "2026-01-01")


LABEL_SQL = """label:
  delay: 1d
  lookback: 3d
  sql: >-
    SELECT customer_id, min(event_timestamp) AS event_timestamp,
        max(created_timestamp) AS label_timestamp,
    CASE WHEN count(*) > 1 THEN 1 ELSE 0 END AS label FROM orders GROUP BY customer_id
"""


def with_sql(made: Intake) -> Intake:
    text = (made.folder / "shop.yaml").read_text()
    start = text.index("label:")
    (made.folder / "shop.yaml").write_text(
        text[:start] + LABEL_SQL + text[text.index("features:") :]
    )
    return made


def label_rows(made: Intake, key: str) -> list[tuple[int, float, str]]:
    rows = made.lake.read(stored.table(made.lake, "shop/labels"), keys=[key]).to_pylist()
    return [
        (row["customer_id"], row["label"], row["created_timestamp"].isoformat()) for row in rows
    ]


def test_labels_by_sql_hold_what_became_known_in_the_partition(made: Intake) -> None:
    with_sql(made)
    made.load("2026-01-01", "2026-01-03", ["ingest_data", "validate_data"])
    assert label_rows(made, "2026-01-01") == [
        (1, 0.0, "2026-01-01T10:00:00+00:00"),
        (2, 0.0, "2026-01-01T11:00:00+00:00"),
    ]
    assert label_rows(made, "2026-01-02") == [(1, 1.0, "2026-01-02T10:00:00+00:00")]
    assert label_rows(made, "2026-01-03") == [(2, 1.0, "2026-01-03T10:00:00+00:00")]


def test_labels_do_not_depend_on_whether_earlier_days_are_validated(
    made: Intake, tmp_path: Path
) -> None:
    """Each day alone, backwards, gives what the range gives; a day that is not ingested is asked
    for by name.
    """
    with_sql(made)
    with pytest.raises(MissingPartition, match="2026-01-01, 2026-01-02"):
        made.validate("2026-01-03")
    made.load("2026-01-01", "2026-01-03", ["ingest_data", "validate_data"])
    other = with_sql(Intake(tmp_path / "backwards"))
    other.put(HEAD + GOOD)
    keys = other.keys("2026-01-01", "2026-01-03")
    for key in keys:
        other.ingest(key)
    for key in reversed(keys):
        assert other.run("validate_data", key).digest == made.result("validate_data", key).digest


def test_a_blocked_day_gives_no_rows_to_later_labels_and_stops_nobody_else(made: Intake) -> None:
    with_sql(made)
    made.put(HEAD + GOOD.replace("2026-01-02T10:00:00Z,30,1", "2026-01-02T10:00:00Z,abc,1"))
    reports = made.load("2026-01-01", "2026-01-03", ["ingest_data", "validate_data"])
    assert [report.state for report in reports if report.stage == "validate_data"] == [
        "done",
        "blocked",
        "done",
    ]
    assert label_rows(made, "2026-01-02") == []
    assert [row[:2] for row in label_rows(made, "2026-01-03")] == [(2, 1.0)]


TIMES = "created_timestamp AS label_timestamp"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1 AS customer_id", r"lacks \['event_timestamp', 'label_timestamp', 'label'\]"),
        (
            f"SELECT customer_id, event_timestamp, {TIMES}, 7 AS label FROM orders",
            "labels are 0, 1 or null",
        ),
        (
            f"SELECT NULL AS customer_id, event_timestamp, {TIMES}, 1 AS label FROM orders",
            "a label needs its entity",
        ),
        (
            f"SELECT customer_id, event_timestamp, {TIMES}, range AS label FROM orders, range(2)",
            "two labels",
        ),
        ("SELECT * FROM secrets", r"label.sql reads \['secrets'\]"),
        ("SELECT * FROM read_csv('/etc/passwd')", r"reads read_csv\(...\)"),
    ],
)
def test_a_label_query_that_gives_no_labels_is_refused(made: Intake, query: str, said: str) -> None:
    with_sql(made)
    text = (made.folder / "shop.yaml").read_text()
    start, end = text.index("    SELECT customer_id, min("), text.index("features:")
    (made.folder / "shop.yaml").write_text(text[:start] + f"    {query}\n" + text[end:])
    made.ingest()
    with pytest.raises(ConfigError, match=said):
        made.run("validate_data", "2026-01-01")


def test_a_rerun_is_answered_from_the_record_and_a_changed_contract_is_not(made: Intake) -> None:
    made.validate()
    versions = made.versions()
    assert made.validate().reused is True
    assert made.versions() == versions
    made.define(columns=COLUMNS.replace("{type: float64}", "{type: float64, max: 1000}"))
    assert made.run("validate_data", "2026-01-01").reused is False
    assert made.run("validate_data", "2026-01-01", force=True).reason == "equal to the record"
