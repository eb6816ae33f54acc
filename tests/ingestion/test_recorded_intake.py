"""What ingestion records is read back as it was, and of all partitions at once."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from include.errors import ArtefactError
from include.ingestion.recorded_intake import RecordedIntake
from include.pipeline.ingest_outputs import IngestOutputs, StaticVersion

HEADER = {"columns": ["order_id", "paid"], "files": ["orders.csv"], "count": 1}
EVENTS = {
    "checksum": "3:77",
    "corrections": 0,
    "rows": 3,
    "digest": "sha256:a",
    "source_digest": "sha256:b",
    "files": ["orders.csv"],
    "columns": [HEADER],
    "late": 0,
    "early": 0,
    "arrival": "recorded",
}
WAITING = {"rows": 1, "corrections": 1, "partitions": ["2026-01-01"], "sample": ["{order_id=1}"]}
VERSION = {
    "rows": 2,
    "digest": "sha256:c",
    "source_digest": "people.csv:d",
    "files": ["people.csv"],
    "columns": [HEADER],
    "late": 0,
    "arrival": "valid_from",
    "version": "2026-01-01",
    "observed": "2026-01-02T00:01:00+00:00",
}
OUTSIDE = {
    "rows": 0,
    "digest": "",
    "source_digest": "",
    "files": [],
    "columns": [],
    "expected": False,
}
KINDS: dict[str, dict[str, Any]] = {
    "events": EVENTS,
    "events of a partition's own files": {**EVENTS, "marks": {"orders.csv": "120:1767"}},
    "events compared row by row": {
        "checksum": "3:77",
        "corrections": 1,
        "compared": {"2026-01-01": "4:99"},
        **{key: value for key, value in EVENTS.items() if key not in ("checksum", "corrections")},
    },
    "events with rows that wait": {**EVENTS, "seen": "4:99", "waiting": WAITING},
    "events with redriven rows": {**EVENTS, "rows": 4, "redriven": 1},
    "events of before rows were compared": {
        key: value for key, value in EVENTS.items() if key not in ("checksum", "corrections")
    },
    "outside the history": OUTSIDE,
    "a static version": VERSION,
    "a static version with the next one": {
        **VERSION,
        "pending": {**VERSION, "version": "2026-01-03", "digest": "sha256:e"},
        "restated": 2,
    },
}


def result(key: str, state: str = "done", **sources: Any) -> Any:
    """Return as much of a recorded result as is asked of it."""
    return SimpleNamespace(key=key, state=state, outputs={"sources": sources})


def context(*results: Any, stage: str = "ingest_data") -> Any:
    """Return as much of a context as is asked of it."""
    return SimpleNamespace(preloaded={(stage, each.key): each for each in results})


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_source_is_read_and_recorded_again_to_the_same_text(kind: str) -> None:
    recorded = result("2026-01-01", orders=KINDS[kind])
    again = IngestOutputs.of(recorded).plain()
    assert json.dumps(again) == json.dumps(recorded.outputs)


def test_a_failed_run_has_no_sources() -> None:
    assert IngestOutputs.of(SimpleNamespace(outputs={"error": "Busy"})).sources == {}


def test_a_record_of_another_form_is_refused_with_the_place() -> None:
    with pytest.raises(ArtefactError, match=r"rows.*run the stage again"):
        IngestOutputs.of(result("2026-01-01", orders={**EVENTS, "rows": "three"}))


def test_only_a_static_source_is_a_version() -> None:
    sources = IngestOutputs.of(result("2026-01-02", orders=EVENTS, people=VERSION)).sources
    assert StaticVersion.of(sources["orders"]) is None
    version = StaticVersion.of(sources["people"])
    assert version is not None
    assert (version.version, version.rows) == ("2026-01-01", 2)
    assert sources["people"].stored_under("2026-01-02") == "2026-01-01"
    assert sources["orders"].stored_under("2026-01-02") == "2026-01-02"


def test_partitions_that_are_not_done_or_do_not_expect_a_source_tell_nothing_of_it() -> None:
    known = context(
        result("2026-01-01", orders=EVENTS, people=VERSION),
        result("2026-01-02", "blocked", orders=EVENTS, people=VERSION),
        result("2026-01-03", orders=OUTSIDE, people=VERSION),
    )
    record = RecordedIntake()
    assert list(record.done(known)) == ["2026-01-01", "2026-01-03"]
    assert list(record.expected("orders", known)) == ["2026-01-01"]
    assert list(record.versions("people", known)) == ["2026-01-01", "2026-01-03"]
    assert record.versions("orders", known) == {}


def test_a_result_that_is_recorded_anew_is_read_again() -> None:
    record, first = RecordedIntake(), context(result("2026-01-01", orders=EVENTS))
    assert record.done(first)["2026-01-01"] is record.done(first)["2026-01-01"]
    restated = context(result("2026-01-01", orders={**EVENTS, "digest": "sha256:z"}))
    assert record.done(restated)["2026-01-01"].sources["orders"].digest == "sha256:z"
    assert RecordedIntake().done(context(stage="validate_data")) == {}


def test_a_single_run_reads_the_records_once() -> None:
    asked: list[str] = []

    def of(use_case: str, *, stage: str) -> list[Any]:
        asked.append(stage)
        return [result("2026-01-01", orders=EVENTS, people=VERSION)]

    single = SimpleNamespace(
        preloaded=None,
        records=SimpleNamespace(results=SimpleNamespace(of=of)),
        use_case=SimpleNamespace(name="shop"),
    )
    record: Any = RecordedIntake()
    assert list(record.done(single)) == list(record.versions("people", single)) == ["2026-01-01"]
    assert asked == ["ingest_data"]
