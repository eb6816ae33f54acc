"""What validation records is read back as it was, and which partitions it looks back on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.pipeline import status
from include.pipeline.validation_outputs import LabelTable, ValidationOutputs
from include.validation.lookback import recorded_results
from tests.builders.intake import HEAD, Intake

GOOD_DAYS = HEAD + "".join(
    f"{day},1,2026-01-0{day}T10:00:00Z,2026-01-0{day}T10:00:00Z,10,1\n" for day in (1, 2, 3)
)

SOURCE = {
    "table": "shop/curated/orders@d0e39da2f0",
    "curated_digest": "sha256:a",
    "rows": 3,
    "quarantined": 1,
    "duplicates": 1,
    "conflicts": 0,
    "repeated": 0,
    "sharing": 0,
    "rules": {"amount: below_min": 1},
}
VERSION = {
    **SOURCE,
    "version": "2026-01-01",
    "mark": "sha256:b",
    "profile": {"people: rows": 3, "people: share of bad rows": 0.25, "people: age": None},
}
LABELS = {"table": "shop/labels", "digest": "sha256:c", "rows": 2, "rules": "d"}
WHOLE = {
    "verdict": "quarantine",
    "sources": {"orders": SOURCE, "people": VERSION},
    "labels": LABELS,
    "report": "/srv/validation/shop/2026-01-01",
    "rules": "sha256:e",
}
KINDS: dict[str, dict[str, Any]] = {
    "whole": WHOLE,
    "without sources": {**WHOLE, "sources": {}},
    "of before tables were named": {
        "verdict": "pass",
        "sources": {"orders": {key: SOURCE[key] for key in SOURCE if key != "table"}},
        "labels": {"digest": "sha256:c", "rows": 2},
        "report": "/srv/validation",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_validation_is_read_and_recorded_again_to_the_same_text(kind: str) -> None:
    recorded = SimpleNamespace(outputs=KINDS[kind])
    assert json.dumps(ValidationOutputs.of(recorded).plain()) == json.dumps(KINDS[kind])


def test_a_failed_run_has_neither_sources_nor_labels() -> None:
    outputs = ValidationOutputs.of(SimpleNamespace(outputs={"error": "Busy"}))
    assert (outputs.sources, bool(outputs.labels), bool(outputs.rules)) == ({}, False, False)


def test_labels_are_a_table_with_rules() -> None:
    labels = ValidationOutputs.of(SimpleNamespace(outputs=WHOLE)).labels
    assert isinstance(labels, LabelTable)
    assert (labels.rows, labels.rules) == (2, "d")


def test_results_of_a_range_are_those_of_the_stage_and_keys() -> None:
    results = {
        (stage, key): SimpleNamespace(stage=stage, key=key)
        for stage in ("ingest_data", "validate_data")
        for key in ("2026-01-01", "2026-01-02")
    }
    context: Any = SimpleNamespace(preloaded=results)
    both = recorded_results(context, "ingest_data")
    assert [(result.stage, result.key) for result in both] == [
        ("ingest_data", "2026-01-01"),
        ("ingest_data", "2026-01-02"),
    ]
    (one,) = recorded_results(context, "validate_data", {"2026-01-02", "2026-01-09"})
    assert (one.stage, one.key) == ("validate_data", "2026-01-02")


def test_labels_made_without_a_partition_are_stale_once_that_is_there(tmp_path: Path) -> None:
    """A source may lack it (`gaps: allow`), so they are made; what it brings is not among them."""
    made = Intake(tmp_path, more="gaps: allow")
    file = made.folder / "shop.yaml"
    text = file.read_text()
    label = next(line for line in text.splitlines() if line.startswith("label:"))
    sql = (
        "SELECT customer_id, min(event_timestamp) AS event_timestamp, max(event_timestamp) AS "
        "label_timestamp, count(*) > 2 AS label FROM orders GROUP BY customer_id"
    )
    file.write_text(text.replace(label, f"label: {{sql: '{sql}', lookback: 9d, delay: 1d}}"))
    made.put(GOOD_DAYS)
    first, gap, last = "2026-01-01", "2026-01-02", "2026-01-03"
    for key in (first, last):
        made.ingest(key)
        made.validate(key)
    without = made.result("validate_data", last).digest

    def kinds() -> dict[str, str]:
        return {row.key: row.kind for row in status.status_rows(made.records, made.use_case)}

    assert "stale" not in kinds().values()
    made.ingest(gap)
    assert kinds()[last] == "stale"
    assert made.validate(last).digest != without
    assert kinds()[last] != "stale"
