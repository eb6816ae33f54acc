"""A line of the log: of this version and of those before, and what is no line."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from include.predictions.line import VERSION, LoggedLine, UnreadableLine, read_line
from include.predictions.line_writer import LineWriter
from include.predictions.log import PredictionLog
from tests.builders.logged import DAY, SOURCE, line, micros, version_1


@pytest.fixture
def writer(tmp_path: Path) -> LineWriter:
    return LineWriter(PredictionLog(tmp_path, "loans"))


def test_a_line_of_this_version_is_read_as_it_was_written(writer: LineWriter) -> None:
    text = line(writer, 7, caller_id="mine", flags=["stale", "fallback"], reason=b"no_features")
    assert read_line("s", 2, text) == LoggedLine(
        segment="s",
        line=2,
        at=micros(DAY),
        request_id="r7",
        caller_id="mine",
        outcome="answered",
        reason="no_features",
        generation=4,
        release=None,
        step=None,
        assigned="champion",
        arm="champion",
        version=3,
        digest="sha256:3",
        feature_set="fs",
        entity="7",
        score=0.5,
        threshold=0.5,
        decision="accept",
        flags="stale,fallback",
        features_at=None,
        latency_us=90,
        model_us=4,
        features='{"a":1}',
        batch=False,
    )


def test_a_line_without_a_version_is_read_with_defaults() -> None:
    read = read_line("s", 0, version_1(features_at="2026-03-09T00:00:00+00:00", arm="fallback"))
    assert (read.request_id, read.entity, read.score, read.features) == (
        "old",
        "7",
        0.5,
        '{"a": 1}',
    )
    assert read.at == micros(DAY.replace(hour=0)) + 1
    assert read.features_at == micros(DAY.replace(day=9, hour=0))
    assert (read.outcome, read.assigned, read.arm) == ("answered", "champion", "fallback")
    assert (read.generation, read.release, read.threshold, read.model_us) == (None,) * 4


def test_a_row_of_a_batch_is_marked_as_lines_of_version_2_were_not(writer: LineWriter) -> None:
    template = writer.template(msgspec.structs.replace(SOURCE, batch=True))
    values = {"request_id": "r.1", "caller_id": None, "at": micros(DAY), "entity": 1}
    text = writer.line(template, **values, features=None, latency_us=9)
    assert read_line("s", 0, text).batch
    before = {**json.loads(line(writer, 1)), "v": 2, "release": None, "step": None}
    assert "batch" not in before
    assert read_line("s", 0, json.dumps(before).encode()).batch is False


def test_a_later_version_is_not_read_in_part(writer: LineWriter) -> None:
    plain = json.loads(line(writer, 1))
    later = json.dumps({**plain, "v": VERSION + 1, "new": 1}).encode()
    with pytest.raises(UnreadableLine, match=f"of version {VERSION + 1}"):
        read_line("s", 0, later)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"\0" * 4096,
        b'{"request_id":"half',
        b"[1]\n",
        b"{}\n",
        b'{"request_id":"\xff","at":1772323199999999}\n',
        version_1(version=10**30),
        version_1(score="0.5"),
        version_1(at="yesterday"),
        version_1(at=0),
        version_1(at="9999-12-31T00:00:00Z"),
        version_1(features=[1]),
        version_1()[:-3].replace(b'"a": 1', b'"a": "\xff"') + b"}\n",
        version_1(features={"a": "\ud800"}),
        b'{"request_id":' + b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_no_line_says_why_and_never_what_stands_in_it(text: bytes) -> None:
    with pytest.raises(UnreadableLine) as caught:
        read_line("s", 0, text)
    assert 0 < len(str(caught.value)) <= 160
    assert "yesterday" not in str(caught.value)
