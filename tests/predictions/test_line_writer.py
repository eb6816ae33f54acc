"""Lines put together from bytes: they are whole whatever comes in, and without what is personal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from include.predictions.entity_hash import entity_hasher
from include.predictions.line import LoggedLine, read_line
from include.predictions.line_writer import MAX_ROW, MAX_TEMPLATES, LineWriter
from include.predictions.log import PredictionLog, closed_segments
from include.predictions.reading import read
from tests.builders.logged import SOURCE, line

HOSTILE = 'quote " percent %s %d \\ line\nfeed \u2028 \x00 \x1f <script> ä'


def written(tmp_path: Path, *, pii: tuple[str, ...] = (), **changes: Any) -> LoggedLine:
    writer = LineWriter(PredictionLog(tmp_path, "loans"), pii=pii)
    text = line(writer, 1, **changes)
    assert text.count(b"\n") == 1
    assert text.endswith(b"\n")
    return read_line("s", 0, text)


@pytest.mark.parametrize("entity", [0, -(2**63), 2**63 - 1, "A-1", "", HOSTILE])
def test_any_entity_is_one_line(tmp_path: Path, entity: int | str) -> None:
    assert written(tmp_path, entity=entity).entity == str(entity)


def test_texts_of_the_use_case_and_the_model_are_escaped(tmp_path: Path) -> None:
    writer = LineWriter(PredictionLog(tmp_path, "loans"))
    source = msgspec.structs.replace(SOURCE, digest=HOSTILE, feature_set="%b", release="%", step=25)
    values: dict[str, Any] = {"request_id": "r", "caller_id": None, "at": 1772323199999999}
    values |= {"entity": None, "score": 0.25, "features": None, "latency_us": 1}
    read = read_line("s", 0, writer.line(writer.template(source), decision=HOSTILE, **values))
    assert (read.digest, read.decision, read.feature_set) == (HOSTILE, HOSTILE, "%b")
    assert (read.release, read.step, read.features, read.entity) == ("%", 25, None, None)


@pytest.mark.parametrize(
    "row", [{"a": HOSTILE}, {"%s": 1, "b": None}, {}, {"a": [1, {"b": "\n"}]}, {"ä": -0.0}]
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_row_is_kept_as_it_came(tmp_path: Path, row: dict[str, Any], indent: int | None) -> None:
    features = json.dumps(row, indent=indent, ensure_ascii=False).encode()
    read = written(tmp_path, features=features)
    assert read.features is not None
    assert json.loads(read.features) == row


def test_a_padded_row_takes_no_more_disk_than_its_values(tmp_path: Path) -> None:
    for padded in (
        b'{"a":' + b" " * MAX_ROW + b'1, "a": 2.5}',
        b'{"a":2.5' + b"0" * MAX_ROW + b"}",
        b'{"a":2.5,"a":' + b"2.5" + b"\t" * MAX_ROW + b"}",
    ):
        assert written(tmp_path, features=padded).features == '{"a":2.5}'
    escaped = b'{"a":"' + b"\\u0061" * MAX_ROW + b'"}'
    assert len(written(tmp_path, features=escaped).features or "") == MAX_ROW + 8


@pytest.mark.parametrize("score", [0.1 + 0.2, 1e-300, np.float64(0.1), np.float64(1) / 3])
def test_a_score_loses_no_digit(tmp_path: Path, score: float) -> None:
    assert written(tmp_path, score=score).score == score


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, None])
def test_what_is_no_score_is_null(tmp_path: Path, score: float | None) -> None:
    assert written(tmp_path, score=score, outcome=b"failed").score is None


def test_marked_features_are_cut_out_wherever_they_stand(tmp_path: Path) -> None:
    features = (
        b'{"email":"anna@x","a":{"email":"kept: a feature of that name only"},\n"\\u0065mail":1}'
    )
    read = written(tmp_path, pii=("email",), features=features)
    assert read.features is not None
    assert "anna" not in read.features
    assert list(json.loads(read.features)) == ["a"]


def test_an_entity_is_named_by_a_keyed_hash_that_outcomes_can_be_joined_by(tmp_path: Path) -> None:
    name_of = entity_hasher("key")
    writer = LineWriter(PredictionLog(tmp_path, "loans"), name_of=name_of)
    entities = [read_line("s", 0, line(writer, 1, entity=one)).entity for one in (1, "1", "2")]
    assert entities == [name_of("1"), name_of("1"), name_of("2")]
    assert entities[0] != entities[2]
    assert name_of("1") != entity_hasher("another key")("1")


def test_templates_are_made_once_and_bounded(tmp_path: Path) -> None:
    writer = LineWriter(PredictionLog(tmp_path, "loans"))
    assert writer.template(SOURCE) is writer.template(SOURCE)
    for generation in range(3 * MAX_TEMPLATES):
        writer.template(msgspec.structs.replace(SOURCE, generation=generation))
    assert len(writer._templates) <= MAX_TEMPLATES


def test_lines_of_a_batch_are_there_together(tmp_path: Path) -> None:
    writer = LineWriter(PredictionLog(tmp_path, "loans"))
    writer.write(*(line(writer, number) for number in range(3)))
    assert (writer.log.written_lines, writer.log.written_bytes > 300) == (3, True)
    writer.log.close()
    rows = read(closed_segments(tmp_path, "loans"))
    assert rows.column("request_id").to_pylist() == ["r0", "r1", "r2"]
