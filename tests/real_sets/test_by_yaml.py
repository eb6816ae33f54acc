"""Published tables from the file to a judged model by a YAML written by hand: what they lack (a
time, an id, a time in one column) is made by it.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from include.onboarding import check, try_data
from include.pipeline import ranges
from include.point_in_time import partitions
from tests.builders.installation import TO_JUDGEMENT, Installation
from tests.real_sets.test_published import ADULT, AFTER_THE_OUTCOME, given

NUMBERS = [
    "age",
    "fnlwgt",
    "education_num",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "lead_time",
    "adr",
    "adults",
    "children",
    "babies",
    "is_repeated_guest",
    "is_canceled",
    "total_of_special_requests",
    "booking_changes",
    "stays_in_weekend_nights",
    "stays_in_week_nights",
    "previous_cancellations",
    "previous_bookings_not_canceled",
    "arrival_date_year",
    "arrival_date_week_number",
    "arrival_date_day_of_month",
    "days_in_waiting_list",
    "required_car_parking_spaces",
]
DAY = "1994-01-01"
PEOPLE = """name: adult
history: {{first: 1994-01-01, last: 1994-01-01}}
entity: {{name: row, key: row_id, type: string}}
sources:
  people:
    path: "{path}"
    format: csv
    snapshot: 1994-01-01
    header: false
    skip: {skip}
    null_values: ["?"]
    key: [row_id]
    columns: {{row_id: {{type: string, digest: row}}, {columns},
      gain: {{type: int64, sql: capital_gain - capital_loss}}}}
label: {{source: people, column: income, positive: [">50K", ">50K."], label_time: event + 0s,
  delay: 0s}}
features:
  facts: {{grain: event, source: people, columns: {{{features}, gain: int64}}}}
training: {{split: {{by: hash}}, rounds: {rounds}}}
gates: {{min_rows: 50, min_auc: 0.8}}
"""
BOOKINGS = """name: hotel
cadence: month
history: {{first: 2013-06-01, last: 2017-08-01}}
entity: {{name: booking, key: booking_id, type: string}}
sources:
  bookings:
    path: hotel_bookings.csv.gz
    event_time: booked_on
    arrival: event + 0d
    empty: allow
    null_values: ["NULL", NA]
    key: [booking_id]
    columns:
      booking_id: {{type: string, digest: row}}
      booked_on:
        type: date
        sql: >-
          make_date(arrival_date_year, map {{'January': 1, 'February': 2, 'March': 3, 'April': 4,
          'May': 5, 'June': 6, 'July': 7, 'August': 8, 'September': 9, 'October': 10,
          'November': 11, 'December': 12}}[arrival_date_month], arrival_date_day_of_month)
          - lead_time
      {columns}
label: {{source: bookings, column: is_canceled, label_time: event + 0d, delay: 0d}}
features:
  facts: {{grain: event, source: bookings, columns: {{{features}}}}}
training: {{rounds: 100}}
"""


def kind(name: str) -> str:
    return "string" if name not in NUMBERS else "float64" if name == "adr" else "int64"


def people(home: Path, name: str, content: bytes, **options: Any) -> Installation:
    """Return an installation of the census, whose file has no header."""
    folder = home / "usecases"
    folder.mkdir()
    (folder / name).write_bytes(content)
    columns = ", ".join(
        f"{column}: {{type: {kind(column)}, header: c{place}}}"
        for place, column in enumerate(ADULT, 1)
    )
    features = ", ".join(f"{column}: {kind(column)}" for column in ADULT if column != "income")
    values = {"skip": 0, "rounds": 300} | options
    (folder / "adult.yaml").write_text(
        PEOPLE.format(path=name, columns=columns, features=features, **values)
    )
    check.check_file(folder / "adult.yaml")
    return Installation(home, "adult")


def judged(made: Installation, key: str) -> dict[str, Any]:
    for stage in TO_JUDGEMENT:
        assert made.run(stage, key).state == "done"
    outputs: dict[str, Any] = made.result("evaluate_model", key).outputs
    assert "no time in the data" in Path(outputs["report"]).read_text()
    return outputs


def test_a_part_of_adult_without_a_time_and_an_id_becomes_a_judged_model(tmp_path: Path) -> None:
    """The test's file has a first line to skip and a dot behind each class; the other has not."""
    with gzip.open(given("adult/adult.data.gz")) as file:
        lines = [file.readline() for _ in range(1_500)]
    with gzip.open(given("adult/adult.test.gz")) as file:
        lines = [file.readline() for _ in range(1_501)] + lines
    made = people(tmp_path, "part.txt", b"".join(lines), skip=1, rounds=40)
    outputs = judged(made, DAY)
    assert outputs["metrics"]["auc"] > 0.85
    facts = made.result("validate_data", DAY).outputs["sources"]["people"]
    assert (facts["rows"], facts["quarantined"]) == (3_000, 0)


@pytest.mark.slow
def test_adult_as_published(tmp_path: Path) -> None:
    made = people(tmp_path, "adult.data.gz", given("adult/adult.data.gz").read_bytes())
    assert judged(made, DAY)["metrics"]["auc"] >= 0.92
    ids = [row["row_id"] for row in made.lake.read("adult/raw/people", keys=[DAY]).to_pylist()]
    assert len(ids) == len(set(ids)) == 32_561
    # 24 are copies as a whole, one but for its outcome.
    assert sum(not each.endswith("-1") for each in ids) == 25
    said = dict(try_data.try_data(made.use_case, made.settings).facts)
    assert said["time"] == "no time in the data: nothing here says how the model will do later"


@pytest.mark.slow
def test_hotel_bookings_are_decisions_of_the_day_they_were_made(tmp_path: Path) -> None:
    path = given("hotel_bookings/hotel_bookings.csv.gz")
    with gzip.open(path, "rt") as file:
        head = file.readline().strip().split(",")
    folder = tmp_path / "usecases"
    folder.mkdir()
    shutil.copy(path, folder)
    later = [*AFTER_THE_OUTCOME.split(", "), "is_canceled"]
    (folder / "hotel.yaml").write_text(
        BOOKINGS.format(
            columns="\n      ".join(f"{name}: {{type: {kind(name)}}}" for name in head),
            features=", ".join(f"{name}: {kind(name)}" for name in head if name not in later),
        )
    )
    use_case = check.check_file(folder / "hotel.yaml")
    made = Installation(tmp_path, "hotel")
    keys = partitions.between(use_case, "2013-06-01", "2017-08-01")
    for key in keys:
        made.ask(key)
    for stage in ("ingest_data", "validate_data"):
        reports = ranges.run_range(stage, "hotel", keys, settings=made.settings, actor="test")
        assert {report.state for report in reports} == {"done"}
    booked = (
        "CAST(strptime(arrival_date_year || ' ' || arrival_date_month || ' ' || "
        "arrival_date_day_of_month, '%Y %B %d') - to_days(lead_time::INTEGER) AS DATE)"
    )
    raw = made.lake.read("hotel/raw/bookings", keys=keys)
    with duckdb.connect() as con:
        con.register("raw", raw)
        expected = con.execute(
            f"SELECT strftime({booked}, '%Y-%m-01') AS month, count(*) FROM "
            f"read_csv('{path}', header = true, all_varchar = true) GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert (
            con.execute("SELECT partition, count(*) FROM raw GROUP BY 1 ORDER BY 1").fetchall()
            == expected
        )
        assert con.execute("SELECT count(DISTINCT booking_id) FROM raw").fetchall() == [(119_390,)]
