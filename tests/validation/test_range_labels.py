"""Labels by SQL see earlier partitions as they were known, from the lake or curated on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import ConfigError, MissingPartition
from tests.builders import stored
from tests.builders.intake import GOOD, HEAD, Intake

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


@pytest.mark.slow
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
