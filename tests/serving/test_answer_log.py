"""What the node puts on record: answers, failures, nothing personal, and what a full disk does."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from include.deployment.description import LogRules
from include.errors import Unavailable
from include.predictions.entity_hash import entity_hasher
from include.predictions.import_segments import import_closed
from include.predictions.log import closed_segments, folder
from include.predictions.reading import read
from include.serving import openapi
from include.serving.answer_log import Asked
from include.serving.snapshot import Loaded, Online
from include.serving.workers import Workers
from tests.builders.application import Client
from tests.builders.logged import DAY
from tests.builders.serving import NAME, NOW, ROW, Desk


class Scorer:
    """A model that gives no answer."""

    features = tuple(ROW)

    def __init__(self, error: Exception) -> None:
        self._error = error

    def one(self, row: object) -> float:
        raise self._error


@pytest.fixture
def client(tmp_path: Path) -> Client:
    desk = Desk(tmp_path)
    desk.publish({1: (NOW, ROW)})
    return Client(desk)


def broken(error: Exception) -> Loaded:
    return Loaded(9, "sha256:9", "fs", "2026-03-01", scorer=Scorer(error))  # type: ignore[arg-type]


def logged(client: Client) -> list[dict[str, Any]]:
    """Return what the use case has on record, oldest first."""
    client.app.log.close()
    return read(closed_segments(client.desk.settings.home, NAME)).to_pylist()


def with_log(client: Client, **rules: Any) -> None:
    """Change what the use case says of its log."""
    changed = msgspec.structs.replace(client.use_case.log, **rules)
    client.use_case = msgspec.structs.replace(client.use_case, log=changed)


def events(client: Client) -> dict[str, float]:
    lines = client.ask("GET", "/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("evergreen_events_total{")]
    return {line.split('event="')[1].split('"')[0]: float(line.split()[-1]) for line in found}


def test_the_line_and_the_answer_say_the_same(client: Client) -> None:
    online = Online(client.desk.settings.home / "online" / f"{NAME}.db")
    model = client.serve(1, online=online, generation=5)
    answers = [client.predict(entity=1).json(), client.predict(features=ROW).json()]
    for answer, row, entity in zip(answers, logged(client), ("1", None), strict=True):
        assert (row["request_id"], row["score"]) == (answer["request_id"], answer["score"])
        assert (row["decision"], row["threshold"]) == (answer["decision"], 0.5)
        assert (row["version"], row["digest"]) == (1, model.digest)
        assert (row["arm"], row["assigned"], row["outcome"]) == ("champion", "champion", "answered")
        assert (row["generation"], row["entity"], row["reason"]) == (5, entity, "")
        assert json.loads(row["features"]) == ROW
        assert row["latency_us"] >= row["model_us"] >= 0
    assert logged(client)[0]["features_at"] == NOW


def test_a_fallback_is_a_line_with_both_arms_and_the_reason(client: Client) -> None:
    previous = client.serve(1)
    client.serve(1, champion=broken(Unavailable("damaged")), previous=previous)
    client.predict(features=ROW)
    client.serve(1, champion=None, previous=previous)
    client.predict(features=ROW)
    rows = logged(client)
    assert [(row["assigned"], row["arm"], row["reason"]) for row in rows] == [
        ("champion", "fallback", "model_failed"),
        ("champion", "fallback", "not_loaded"),
    ]
    assert {row["version"] for row in rows} == {1}


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(Unavailable("damaged"), 503, "model_failed"), (KeyError("a bug"), 500, "fault")],
)
def test_a_failure_of_a_model_is_a_line(
    client: Client, error: Exception, status: int, reason: str
) -> None:
    client.serve(1, champion=broken(error))
    assert client.predict(features=ROW).status_code == status
    (row,) = logged(client)
    assert (row["outcome"], row["reason"], row["version"]) == ("failed", reason, 9)
    assert (row["arm"], row["assigned"], row["score"]) == (None, "champion", None)
    assert json.loads(row["features"]) == ROW


def test_features_that_are_not_online_are_a_failure_and_a_callers_mistake_is_none(
    client: Client,
) -> None:
    online = Online(client.desk.settings.home / "online" / f"{NAME}.db")
    model = client.serve(1)
    client.serve(1, champion=replace(model, feature_set="another"), online=online)
    assert client.predict(entity=1).json()["error"]["code"] == "no_features"
    client.serve(1, online=online)
    for body in ({"entity": 99}, {"features": {"income": True}}, {"features": {"jobs": 1}}):
        assert client.predict(**body).status_code in (404, 422)
    (row,) = logged(client)
    assert (row["outcome"], row["reason"], row["entity"]) == ("failed", "no_features", "1")


def test_what_is_marked_is_found_nowhere_on_disk(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """In no segment, lake, report, audit row, database or message: answered, failed or refused."""
    region, entity, home = "Anna-4711", 47114711, client.desk.settings.home
    caplog.set_level(logging.DEBUG)
    with_log(client, pii=["region"], hashes_entity=True)
    row = {**ROW, "region": region}
    previous = client.serve(1)
    assert client.predict(entity=entity, features=row).status_code == 200
    client.serve(1, champion=broken(Unavailable("damaged")), previous=previous)
    assert client.predict(entity=entity, features=row).status_code == 200
    client.serve(1, champion=broken(KeyError("a bug")))
    assert client.predict(entity=entity, features=row).status_code == 500
    assert client.predict(entity=entity, features={"region": [region]}).status_code == 422
    client.app.log.close()
    (segment,) = closed_segments(home, NAME)
    with segment.path.open("ab") as file:  # torn, as by a loss of power
        file.write(segment.path.read_bytes()[:-20])
    lake = client.desk.settings.lake_root
    from include.lake.tables import Lake

    import_closed(client.desk.settings, Lake(lake), client.desk.records, NAME, at=DAY, actor="test")
    rows = Lake(lake).read(f"{NAME}/predictions").to_pylist()
    assert {row["entity"] for row in rows} == {entity_hasher("a key of the tests")(str(entity))}
    assert all(set(json.loads(row["features"])) == set(ROW) - {"region"} for row in rows)
    assert {row["outcome"] for row in rows} == {"answered", "failed"}
    for path in home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert region.encode() not in content, path
            assert str(entity).encode() not in content, path
    assert region not in str(rows) + caplog.text
    assert str(entity) not in str(rows) + caplog.text


def test_below_the_floor_a_use_case_stops_alone_and_goes_on_by_itself(client: Client) -> None:
    client.serve()
    client.app.log.show_room(client.use_case.log.floor - 1)
    refused = client.predict(features=ROW)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "log_full")
    assert refused.headers["retry-after"] == "30"
    health = client.ask("GET", "/health").json()["use_cases"][NAME]
    assert "below 500 MB: requests are refused" in health["problems"][0]
    client.app.log.show_room(3 * client.use_case.log.floor)
    assert client.predict(features=ROW).status_code == 200
    assert client.ask("GET", "/health").json()["use_cases"][NAME]["problems"] == []
    assert len(logged(client)) == 1


def test_below_the_floor_flagged_answers_go_on_without_a_line(client: Client) -> None:
    with_log(client, when_full="flag", floor=10**9)
    client.serve()
    client.app.log.show_room(10**9 - 1)
    answer = client.predict(features=ROW)
    assert (answer.status_code, answer.json()["flags"]) == (200, ["unlogged"])
    assert events(client)["unlogged"] == 1
    document = json.dumps(openapi.document(client.app.table.served))
    assert '"unlogged"' in document, "clients are told of it"
    client.app.log.show_room(10**9)
    assert client.predict(features=ROW).json()["flags"] == []
    assert len(logged(client)) == 1


@pytest.mark.parametrize(("when_full", "status"), [("stop", 503), ("flag", 200)])
def test_a_log_that_cannot_be_written_is_as_full(
    client: Client, when_full: str, status: int
) -> None:
    with_log(client, when_full=when_full)
    client.serve()
    path = folder(client.desk.settings.home, NAME)
    path.parent.mkdir()
    path.write_text("a file where the folder should be")
    answer = client.predict(features=ROW)
    assert answer.status_code == status
    assert ("unlogged" in events(client)) == (status == 200)
    path.unlink()
    assert client.predict(features=ROW).json().get("flags") == []


def test_from_twice_the_floor_on_it_warns_once(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.serve()
    floor = client.use_case.log.floor
    for free in (2 * floor, 2 * floor - 1, 2 * floor - 2):
        client.app.log.show_room(free)
    warned = [one.message for one in caplog.records if "the floor is" in one.message]
    assert warned == [f"{NAME}: log: only 1000 MB free; the floor is 500 MB"]
    assert client.predict(features=ROW).status_code == 200


@pytest.mark.anyio
async def test_the_nodes_numbers_follow_its_log(client: Client) -> None:
    client.serve()
    workers = Workers()
    for _ in range(2):
        await client.app.log.keep(workers)
    text = client.app.metrics.render("")[0].decode()
    assert f'evergreen_log_waiting_segments{{use_case="{NAME}"}} 0.0' in text
    free = shutil.disk_usage(client.desk.settings.home).free
    (shown,) = [line for line in text.splitlines() if line.startswith("evergreen_log_free_bytes{")]
    assert float(shown.split()[-1]) == pytest.approx(free, rel=0.2)
    workers.close()


def test_a_reset_closes_the_log_and_a_new_release_opens_another(client: Client) -> None:
    client.serve()
    client.predict(features=ROW)
    shutil.rmtree(folder(client.desk.settings.home, NAME))
    client.app.forget(NAME)
    client.serve()
    client.predict(features=ROW)
    assert len(logged(client)) == 1


def test_rules_that_a_row_of_before_lacks_have_defaults(client: Client) -> None:
    plain = client.use_case.plain()
    plain.pop("log")
    assert type(client.use_case).read(NAME, plain).log == LogRules()


def test_rows_of_a_batch_are_on_disk_together_whatever_arm_each_was_meant_for(
    client: Client,
) -> None:
    model = client.serve()
    served, log = client.app.table.served[NAME], client.app.log
    about: dict[str, Any] = {"caller_id": None, "at": 1772323199999999, "latency_us": 1}
    about["features"] = b"{}"
    writer, champion = log.source(served, model, "champion")
    _, challenger = log.source(served, model, "challenger", "challenger")
    lines = [
        writer.line(champion, request_id="a-1", entity=1, **about),
        writer.line(challenger, request_id="a-2", entity=2, outcome=b"shadow", score=0.25, **about),
    ]
    assert log.put(served, *lines)
    first, second = logged(client)
    assert (first["assigned"], first["outcome"], first["score"]) == ("champion", "answered", None)
    assert (second["assigned"], second["arm"], second["outcome"]) == (
        "challenger",
        "challenger",
        "shadow",
    )


def test_a_request_that_was_admitted_before_the_disk_was_full_is_logged(client: Client) -> None:
    model = client.serve()
    served, log = client.app.table.served[NAME], client.app.log
    log.admit(served)
    log.show_room(0)
    writer, template = log.source(served, model, "champion")
    line = writer.line(
        template,
        request_id="a-1",
        caller_id=None,
        at=1772323199999999,
        entity=1,
        features=b"{}",
        latency_us=1,
    )
    assert log.put(served, line)
    assert [row["request_id"] for row in logged(client)] == ["a-1"]


def test_a_clock_that_is_set_meanwhile_changes_no_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked("a", None)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert 0 <= asked.latency_us < 60_000_000
