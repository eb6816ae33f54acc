"""Drafted views give what a loop over the rows gives, on a table as people have them."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.clock import utc_now
from include.config import use_case_file
from include.config.names import is_ours
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.features import feature_sets
from include.lake.tables import Lake
from include.onboarding import check
from include.onboarding.feature_drafts import MOST, draft_differences, draft_snapshot_view
from include.pipeline import ranges
from include.pipeline.flow import DATA_STAGES
from include.point_in_time import partitions
from include.point_in_time.sql_tree import parse_query
from include.records.records import Records

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 120
AT = "2025-04-01"  # key of the last month
KEYS = ["O'Brien", 'say "hi"', "Åsa", "a;--b", "7", "007"]
KINDS = ["it's", 'a "b"', "Übung", None]
COLUMNS = {
    "amount": "float64",
    "pieces": "int64",
    "kind": "string",
    "paid": "bool",
    "opened": "date",
    "place": "string",
}
YAML = """
name: awkward
cadence: month
history: {{first: 2025-01-01, last: 2025-04-01}}
entity: {{name: customer, key: customer_id, type: string}}
sources:
  seen:
    path: rows.csv
    null_values: [NaN, ""]
    arrival: event + 0s
    key: [row_id]
    max_bad: 1  # rows of one customer and moment are meant here
    empty: allow
    columns:
      row_id: {{type: int64}}
      customer_id: {{type: string, header: "Kunde \\"Nr\\""}}
      amount: {{type: float64, header: "Beträge (€)"}}
      pieces: {{type: int64}}
      kind: {{type: string, header: "種類"}}
      paid: {{type: bool}}
      opened: {{type: date, header: "it's opened"}}
      place: {{type: string}}
      outcome: {{type: int64}}
label: {{source: seen, column: outcome, label_time: event + 0s, delay: 1d}}
features:
{view}
"""
Row = dict[str, Any]


def awkward_rows() -> list[Row]:
    """Rows of quoted keys, with gaps, and with several rows of a key at one moment."""
    rng = random.Random(8)
    rows: list[Row] = []
    for number in range(700):
        rows.append(
            {
                "row_id": number,
                "customer_id": rng.choice(KEYS),
                "event_timestamp": FIRST + timedelta(hours=12 * rng.randrange(2 * DAYS)),
                "amount": rng.choice([None, -1.5, 0.25, 1e9, rng.gauss(0, 5)]),
                "pieces": rng.choice([None, 0, 3, 2**53 + 1]),
                "kind": rng.choice(KINDS),
                "paid": rng.choice([None, True, False]),
                "opened": rng.choice([None, date(2024, 2, 29), date(2025, 3, 1)]),
                "place": rng.choice(["x", "y"]),
                "outcome": rng.randrange(2),
            }
        )
    return rows


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as a file holds them: headers as they come, NaN where there is no number."""
    headers = {
        "customer_id": 'Kunde "Nr"',
        "amount": "Beträge (€)",
        "kind": "種類",
        "opened": "it's opened",
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([headers.get(name, name) for name in rows[0]])
        for row in rows:
            cells = {
                name: value.isoformat() if isinstance(value, date) else value
                for name, value in row.items()
            }
            cells["amount"] = "NaN" if row["amount"] is None else row["amount"]
            writer.writerow(["" if cell is None else cell for cell in cells.values()])


def materialize(folder: Path, view: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the one view of the last month, as the three data stages make them.

    Months are fewer partitions than days, and the windows are of days all the same.
    """
    write_csv(folder / "rows.csv", rows)
    path = folder / "awkward.yaml"
    path.write_text(YAML.format(view="\n".join(view)), encoding="utf-8")
    use_case = use_case_file.load(path)
    assert list(check.find_problems(use_case)) == []
    settings = Settings(home=folder / "home", usecases=str(folder))
    records = Records.open(settings.records_address)
    records.migrate()
    keys = partitions.between(use_case, "2025-01-01", AT)
    for key in keys:
        records.partitions.raise_to(
            use_case.name, key, mode="backfill", target="data", actor="test", at=utc_now()
        )
    for stage in DATA_STAGES:
        wanted = keys if stage != "materialize_features" else keys[-1:]
        for report in ranges.run_range(stage, use_case.name, wanted, settings=settings):
            assert report.state == "done", report.reason
    records.close()
    return stored_rows(use_case, settings)


def stored_rows(use_case: UseCase, settings: Settings) -> list[Row]:
    """Return what the lake holds of the one view."""
    (view,) = feature_sets.current(use_case).views
    lake = Lake(settings.lake_root)
    return lake.read(view.table(use_case.name), keys=[AT]).to_pylist()


def mean(values: Sequence[float]) -> float | None:
    """Return the mean of exactly summed values."""
    return math.fsum(values) / len(values) if values else None


def expected(rows: Sequence[Row], key: str, as_of: datetime) -> Row:
    """Return the features of one customer by plain loops."""
    mine = [
        row
        for row in rows
        if row["customer_id"] == key
        and as_of - timedelta(days=90) <= row["event_timestamp"] < as_of
    ]
    # What is null comes last, as SQL sorts it.
    mine.sort(
        key=lambda row: (
            row["event_timestamp"],
            *((row[name] is None, 0 if row[name] is None else row[name]) for name in COLUMNS),
        )
    )
    lately = [row for row in mine if row["event_timestamp"] >= as_of - timedelta(days=30)]

    def values(name: str, of: Sequence[Row] = mine) -> list[Any]:
        return [row[name] for row in of if row[name] is not None]

    def last(name: str) -> Any:
        return values(name)[-1] if values(name) else None

    def less(first: float | None, second: float | None) -> float | None:
        return None if first is None or second is None else first - second

    def days(moment: datetime) -> float:
        return (as_of - moment) / timedelta(days=1)

    opened = last("opened")
    answer: Row = {
        "rows_90d": len(mine),
        "rows_30d": len(lately),
        "rows_trend_30d": len(lately) * 3 / len(mine),
        "days_since_last": days(mine[-1]["event_timestamp"]),
        "days_since_first": days(mine[0]["event_timestamp"]),
        "paid_share_90d": mean(values("paid")),
        "paid_last": last("paid"),
        "opened_days_ago": None
        if opened is None
        else days(datetime(opened.year, opened.month, opened.day, tzinfo=UTC)),
        "kind_last": last("kind"),
        "kind_distinct_90d": len(set(values("kind"))),
        "kind_share_it_s_90d": mean([value == "it's" for value in values("kind")]),
        "kind_share_a_b_90d": mean([value == 'a "b"' for value in values("kind")]),
        "place_last": last("place"),
        "place_distinct_90d": len(set(values("place"))),
    }
    for name in ("amount", "pieces"):
        answer[f"{name}_mean_90d"] = mean(values(name))
        answer[f"{name}_sum_90d"] = math.fsum(values(name)) if values(name) else None
        answer[f"{name}_last"] = last(name)
        answer[f"{name}_trend_30d"] = less(mean(values(name, lately)), mean(values(name)))
    return answer


def test_a_drafted_history_is_what_a_loop_over_the_rows_gives(tmp_path: Path) -> None:
    """The source is called as the draft's own WITH, and a column as its own place."""
    rows = awkward_rows()
    lines, sql = draft_snapshot_view(
        "seen", "customer_id", COLUMNS, "at", "day", frequent={"kind": ["it's", 'a "b"', "Übung"]}
    )
    assert parse_query(sql).unstable == ()
    given = {row["customer_id"]: row for row in materialize(tmp_path, lines, rows)}
    as_of = datetime(2025, 5, 1, tzinfo=UTC)
    assert sorted(given) == sorted(KEYS)
    for key in KEYS:
        features = expected(rows, key, as_of)
        for name, value in features.items():
            right = pytest.approx(value, rel=1e-9, abs=1e-6) if isinstance(value, float) else value
            assert given[key][name] == right, (key, name)
        assert len(features) == len(yaml.safe_load("\n".join(lines))["earlier_rows"]["columns"])


def test_dates_become_days_before_the_decision(tmp_path: Path) -> None:
    rows = awkward_rows()
    drafted = draft_differences({"opened": "date", "place": "string"}, "event_timestamp")
    assert list(drafted) == ["opened_days_before"]
    kind, expression = drafted["opened_days_before"]
    view = [
        "  ages:",
        "    grain: event",
        "    sql: |",
        "      SELECT customer_id, event_timestamp, created_timestamp, row_id,",
        f"          {expression} AS opened_days_before",
        "      FROM seen",
        f"    columns: {{row_id: int64, opened_days_before: {kind}}}",
    ]
    stored = materialize(tmp_path, view, rows)
    arrived = [row for row in rows if row["event_timestamp"].month == 4]
    assert len(stored) > 0
    by_id = {row["row_id"]: row for row in arrived}
    for row in stored:
        whole = by_id[row["row_id"]]
        opened = whole["opened"]
        days = (
            None
            if opened is None
            else (whole["event_timestamp"] - datetime.combine(opened, datetime.min.time(), UTC))
            / timedelta(days=1)
        )
        assert row["opened_days_before"] == days


@pytest.mark.parametrize("cadence", ["day", "week", "month"])
def test_of_many_columns_each_has_its_plainest_features(cadence: str) -> None:
    columns = {f"number_{place}": "float64" for place in range(30)} | {"flag": "bool"}
    lines, sql = draft_snapshot_view("rows", "id", columns, "at", cadence)
    view = yaml.safe_load("\n".join(lines))["earlier_rows"]
    assert len(view["columns"]) == MOST
    assert all(any(name.startswith(f"{column}_") for name in view["columns"]) for column in columns)
    assert "-- Left out, since 40 are enough to begin with:" in sql
    assert (lines, sql) == draft_snapshot_view("rows", "id", columns, "at", cadence)


NAMERS: list[Callable[[dict[str, str]], list[str]]] = [
    lambda columns: list(
        yaml.safe_load(
            "\n".join(
                draft_snapshot_view("rows", "id", columns, "at", "day", taken=["DAYS_since_last"])[
                    0
                ]
            )
        )["earlier_rows"]["columns"]
    ),
    lambda columns: list(draft_differences(dict.fromkeys(columns, "date"), "at")),
]


@pytest.mark.parametrize("namer", NAMERS, ids=["snapshot", "differences"])
def test_names_are_unique_within_limits_and_none_of_ours(
    namer: Callable[[dict[str, str]], list[str]],
) -> None:
    columns = dict.fromkeys(
        ["a" * 62 + "b", "a" * 63, "Größe", "groesse", "2nd", "__x", "種類", "-"], "int64"
    )
    names = namer(columns)
    assert len(names) == len({name.lower() for name in names})
    assert all(name.isascii() and name.isidentifier() and len(name) <= 63 for name in names)
    assert not any(is_ours(name, ()) for name in names)
    assert "days_since_last" not in names


def test_values_that_cannot_stand_in_a_line_have_no_share() -> None:
    frequent = {"kind": ["a\nb", "x' OR 1=1 --"]}
    lines, sql = draft_snapshot_view(
        "rows", "id", {"kind": "string"}, "at", "day", frequent=frequent
    )
    text = yaml.safe_load("\n".join(lines))["earlier_rows"]["sql"]
    assert text.strip() == sql
    assert "'x'' OR 1=1 --'" in sql
    assert sql.count("avg(") == 1
    assert parse_query(sql).tables == {"rows"}
