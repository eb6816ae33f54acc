from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.builders.intake import COLUMNS, HEAD, Intake

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


def test_a_rerun_is_answered_from_the_record_and_a_changed_contract_is_not(made: Intake) -> None:
    made.validate()
    versions = made.versions()
    assert made.validate().reused is True
    assert made.versions() == versions
    made.define(columns=COLUMNS.replace("{type: float64}", "{type: float64, max: 1000}"))
    assert made.run("validate_data", "2026-01-01").reused is False
    assert made.run("validate_data", "2026-01-01", force=True).reason == "equal to the record"
