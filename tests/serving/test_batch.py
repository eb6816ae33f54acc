"""Batches: each row as if it had come alone, in order, and on record by one write."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from include.predictions import log
from include.predictions.log import closed_segments
from include.predictions.reading import read
from include.predictions.window_counts import REQUESTS
from include.serving.batch import MAX_ROWS, TURN
from include.serving.snapshot import Loaded, Online, RemoteScore, ServedRelease
from tests.builders.application import Client
from tests.builders.counted import by_arms
from tests.builders.serving import NAME, NOW, ROW, Desk

BATCH = f"/v1/{NAME}/batch"


@pytest.fixture
def serving(tmp_path: Path) -> Client:
    """An application with a model and two entities online."""
    desk = Desk(tmp_path)
    desk.publish({1: (NOW, ROW), 2: (NOW, {**ROW, "income": -5.0})})
    client = Client(desk)
    client.serve(online=Online(desk.settings.home / "online" / f"{NAME}.db"))
    return client


def ask(client: Client, rows: Any, **options: Any) -> Any:
    return client.ask("POST", BATCH, json={"rows": rows}, **options)


def logged(client: Client) -> list[dict[str, Any]]:
    client.app.log.close()
    table = read(closed_segments(client.desk.settings.home, NAME))
    return sorted(table.to_pylist(), key=lambda line: line["line"])


@contextmanager
def _room(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_rows_are_answered_in_order_as_if_each_had_come_alone(serving: Client) -> None:
    rows: list[dict[str, Any]] = [
        {"entity": 2},
        {"entity": 99},
        {"features": ROW},
        {"features": dict.fromkeys(ROW)},
        {"entity": 1, "features": {"income": None}},
        {"entity": "1"},
        {"features": {**ROW, "income": True}},
        {"more": 1},
        {},
        {"features": {"income": 1.0}},
        {"entity": 1},
    ]
    answer = ask(serving, rows, headers={"x-request-id": "b-7"})
    body = answer.json()
    assert (answer.status_code, body["request_id"], body["use_case"]) == (200, "b-7", NAME)
    ids = [one["request_id"] for one in body["results"]]
    assert ids == [f"b-7.{at}" for at in range(len(rows))]
    for row, result in zip(rows, body["results"], strict=True):
        alone = serving.predict(**row).json()
        for each in (alone, result):
            each.pop("request_id")
        assert result == alone
    answered = [one for one in body["results"] if "score" in one]
    assert len(answered) == 5
    lines = logged(serving)
    assert [line["caller_id"] for line in lines][:5] == [f"b-7.{at}" for at in (0, 2, 3, 4, 10)]
    assert all(line["batch"] == (line["caller_id"] is not None) for line in lines)


def test_what_is_answered_is_on_record_by_one_write(
    serving: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    real = os.write

    def spy(descriptor: int, data: bytes) -> int:
        written.append(len(data))
        return real(descriptor, data)

    monkeypatch.setattr(log.os, "write", spy)
    results = ask(serving, [{"entity": 1}] * MAX_ROWS).json()["results"]
    assert len(written) == 1
    assert len(results) == MAX_ROWS > TURN
    lines = logged(serving)
    assert [line["score"] for line in lines] == [one["score"] for one in results]
    assert ask(serving, [{"entity": 99}]).status_code == 200
    assert len(written) == 1, "nothing was answered, so nothing is written"


def test_where_the_lines_cannot_be_written_nothing_is_answered(serving: Client) -> None:
    assert ask(serving, [{"entity": 1}]).status_code == 200
    with _room(5000):  # for a part of the lines
        refused = ask(serving, [{"entity": 1}] * 100)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert len(logged(serving)) == 1


def test_rows_are_counted_of_a_release_once_their_lines_are_on_disk(serving: Client) -> None:
    """What was not written was not answered: counted, it would be evidence of nothing."""
    release = ServedRelease("a" * 12, 1, "canary", 0, bytes(16))
    online = Online(serving.desk.settings.home / "online" / f"{NAME}.db")
    serving.serve(online=online, release=release)
    evidence, written = serving.app.evidence, list[int]()
    note = evidence.note

    def spy(*arguments: Any, **options: Any) -> None:
        written.append(serving.app.log.position(NAME)[1])
        note(*arguments, **options)

    evidence.note = spy  # type: ignore[method-assign]
    # None by its entity: the online store's file, which is SQLite's, would find no room either.
    rows: list[dict[str, Any]] = [{"features": ROW}] * (2 * TURN)
    with _room(5000):
        assert ask(serving, rows).status_code == 503
    evidence.fold()
    assert (written, evidence.windows) == ([], {})
    assert ask(serving, rows).status_code == 200
    end = serving.app.log.position(NAME)[1]
    assert written == [end] * len(rows), "none before the last line is there"
    (counts,) = by_arms(evidence).values()
    assert counts.column(REQUESTS) == len(rows) == len(logged(serving))


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        (b"", 400, None),
        (b"[]", 422, "body"),
        (b"{}", 422, "body"),
        (b'{"rows": 1}', 422, "rows"),
        (b'{"rows": []}', 422, "rows"),
        (b'{"rows": [{"entity": 1}], "more": 1}', 422, "more"),
        (b'{"rows": [{"entity": NaN}]}', 400, None),
        (b'{"rows": [{"entity": 1}', 400, None),
        (b'{"rows": ' + b"[" * 100_000, 400, None),
        (json.dumps({"rows": [{}] * (MAX_ROWS + 1)}).encode(), 422, "rows"),
        (json.dumps({"rows": [{"entity": "x" * (1 << 20)}]}).encode(), 413, None),
    ],
)
def test_what_is_no_batch_is_refused_whole(
    serving: Client, content: bytes, status: int, field: str | None
) -> None:
    headers = {"content-type": "application/json"}
    answer = serving.ask("POST", BATCH, content=content, headers=headers)
    assert (answer.status_code, answer.json()["error"].get("field")) == (status, field)
    assert answer.json()["request_id"]


def test_rows_that_are_no_objects_are_refused_alone(serving: Client) -> None:
    results = ask(serving, [1, None, "x", [], {"entity": 1}, "[" * 3]).json()["results"]
    assert [one.get("error", {}).get("code") for one in results] == [
        "invalid", "invalid", "invalid", "invalid", None, "invalid",
    ]  # fmt: skip


class Faulty:
    """A model that meets what nobody expected in rows of one income."""

    def __init__(self) -> None:
        self.features = list(ROW)

    def one(self, row: Mapping[str, object]) -> float:
        if row["income"] == -1.0:
            raise RuntimeError("nobody expected this")
        return 0.5


def test_a_row_at_which_the_node_fails_is_refused_alone(serving: Client) -> None:
    scorer = Faulty()
    serving.serve(
        1,
        champion=Loaded(9, "sha256:9", "fs", "2026-03-01", scorer=scorer),
        release=ServedRelease("0123456789ab", 1, "canary", 0, b"k" * 16),
    )
    rows = [{"features": {**ROW, "income": income}} for income in (1.0, -1.0, 2.0)]
    answer = ask(serving, rows)
    results = answer.json()["results"]
    assert (answer.status_code, [one.get("score") for one in results]) == (200, [0.5, None, 0.5])
    assert results[1]["error"]["code"] == "fault"
    assert [(line["outcome"], line["reason"]) for line in logged(serving)] == [
        ("answered", ""),
        ("answered", ""),
        ("failed", "fault"),
    ]
    assert by_arms(serving.app.evidence)["champion", "none"].error_kinds == {"fault": 1}
    assert 'evergreen_events_total{event="fault",use_case=""} 1.0' in (
        serving.ask("GET", "/metrics").text
    )


def test_batches_enter_no_latency_and_their_rows_are_counted(serving: Client) -> None:
    ask(serving, [{"entity": 1}, {"entity": 2}, {"entity": 99}])
    text = serving.ask("GET", "/metrics").text
    for result, count in (("answered", 2.0), ("refused", 1.0)):
        series = f'evergreen_batch_rows_total{{result="{result}",use_case="{NAME}"}} {count}'
        assert series in text
    assert f'evergreen_answers_total{{route="batch",status="200",use_case="{NAME}"}} 1.0' in text
    assert "evergreen_prediction_seconds_count" not in text


class Slow:
    """A model in a process of its own whose answers take a quarter of the time of a request."""

    def __init__(self, clock: list[float]) -> None:
        self.features, self.alive, self._clock = list(ROW), True, clock

    async def ask(self, row: object) -> RemoteScore:
        import asyncio

        if len(self._clock) == 2:
            await asyncio.get_running_loop().create_future()  # it never answers
        self._clock.append(0.0)
        return RemoteScore(0.5, None)

    def close(self) -> None:
        """It has no process."""


def test_rows_whose_time_is_over_are_refused_and_the_others_are_answered(serving: Client) -> None:
    serving.app._seconds = 0.2
    serving.serve(1, champion=Loaded(9, "sha256:9", "fs", "2026-03-01", remote=Slow([])))
    answer = ask(serving, [{"features": ROW}] * 5)
    results = answer.json()["results"]
    assert [one.get("score") for one in results] == [0.5, 0.5, None, None, None]
    assert {one["error"]["code"] for one in results[2:]} == {"deadline"}
    told = [(line["outcome"], line["reason"]) for line in logged(serving)]
    assert told == [("answered", "")] * 2 + [("failed", "batch_late")] * 3
    late = serving.predict(features=ROW)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")
    assert late.headers["retry-after"] == "1"


def test_the_model_before_answers_where_the_champion_takes_too_long(serving: Client) -> None:
    serving.app._seconds = 0.2
    champion = Loaded(9, "sha256:9", "fs", "2026-03-01", remote=Slow([0.0, 0.0]))
    previous = serving.serve(1)
    serving.serve(1, champion=champion, previous=previous)
    answer = serving.predict(features=ROW)
    assert (answer.status_code, answer.json()["arm"]) == (200, "fallback")
    slow = Loaded(8, "sha256:8", "fs", "2026-03-01", remote=Slow([0.0, 0.0]))
    serving.serve(1, champion=champion, previous=slow)
    assert serving.predict(features=ROW).json()["error"]["code"] == "deadline"


def test_a_model_in_its_own_process_answers_a_batch(serving: Client) -> None:
    champion = Loaded(9, "sha256:9", "fs", "2026-03-01", remote=Slow([]))
    previous = serving.serve(1)
    online = Online(serving.desk.settings.home / "online" / f"{NAME}.db")
    serving.serve(1, champion=champion, previous=previous, online=online)
    results = ask(serving, [{"features": ROW}, {"entity": 1}]).json()["results"]
    # Of the entity the champion's own feature set is not online: the model before answers.
    assert [(one["model_version"], one["arm"]) for one in results] == [
        (9, "champion"),
        (1, "fallback"),
    ]
