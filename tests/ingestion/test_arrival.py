"""Where a row belongs: broken lines, late rows, files of a partition, in every order of runs and
for every kind of source.
"""

from __future__ import annotations

import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from include.errors import ConfigError
from include.point_in_time.partitions import period
from tests.builders.intake import HEAD, Intake
from tests.builders.variants import leave_to_slow

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


@pytest.mark.parametrize(
    "kind",
    [
        "csv",
        *leave_to_slow(("jsonl", "blank", "quoted", "crlf", "gz"), quick=0),
    ],
)
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
