"""Lines of the prediction log, as a node writes them and as earlier versions did."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from include.predictions.line_writer import LineWriter, Source
from include.predictions.log import PredictionLog

DAY = datetime(2026, 3, 10, 12, tzinfo=UTC)
SOURCE = Source(
    version=3,
    digest="sha256:3",
    feature_set="fs",
    arm="champion",
    assigned="champion",
    generation=4,
    threshold=0.5,
)
VERSION_1 = {
    "request_id": "old",
    "at": "2026-03-10T00:00:00.000001+00:00",
    "version": 1,
    "digest": "d",
    "arm": "champion",
    "entity": "7",
    "score": 0.5,
    "decision": "accept",
    "flags": "",
    "feature_set": "f",
    "features_at": None,
    "features": {"a": 1},
    "latency_us": 9,
}
"""A line as it was before lines had a version."""


def micros(moment: datetime) -> int:
    """Return a moment in microseconds since 1970."""
    return round(moment.timestamp()) * 1_000_000 + moment.microsecond


def line(writer: LineWriter, number: int, *, at: datetime = DAY, **changes: Any) -> bytes:
    """Return the line of an answer, of request `r<number>`."""
    values: dict[str, Any] = {
        "request_id": f"r{number}",
        "caller_id": None,
        "at": micros(at),
        "entity": number,
        "score": 0.5,
        "decision": "accept",
        "features": b'{"a":1}',
        "latency_us": 90,
        "model_us": 4,
    }
    return writer.line(writer.template(SOURCE), **{**values, **changes})


def write_segment(
    home: Path, *numbers: int, use_case: str = "loans", at: datetime = DAY, **changes: Any
) -> None:
    """Write one closed segment with a line for each number."""
    writer = LineWriter(PredictionLog(home, use_case))
    for number in numbers:
        writer.write(line(writer, number, at=at, **changes))
    writer.log.close()


def version_1(**changes: Any) -> bytes:
    """Return a line of version 1."""
    return json.dumps({**VERSION_1, **changes}).encode() + b"\n"
