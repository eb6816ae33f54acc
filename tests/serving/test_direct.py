"""The short way of a prediction: it answers as the long way does, or leaves it to that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from include.predictions.log import closed_segments
from include.predictions.reading import read
from include.serving import direct_plan
from include.serving.snapshot import Loaded, Online
from tests.builders.application import Client
from tests.builders.rate_kind import RateModel
from tests.builders.rate_kind import bundle_files as rate_files
from tests.builders.serving import NAME, NOW, ROW, Desk

URL = f"/v1/{NAME}/predict".encode()
HEADERS = {
    b"host": b"node.example",
    b"content-type": b"application/json",
    b"content-length": b"10",
}
OLD = timedelta(days=60)
ENTITIES: dict[int, tuple[Any, dict[str, Any]]] = {
    1: (NOW, ROW),
    2: (NOW - OLD, ROW),
    3: (NOW, dict.fromkeys(ROW)),
    4: (NOW - timedelta(days=300), ROW),
    5: (NOW, {**ROW, "income": float("inf"), "region": "unseen"}),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = Desk(tmp_path_factory.mktemp("direct"))
    made.publish(ENTITIES)
    return made


@pytest.fixture
def client(desk: Desk) -> Iterator[Client]:
    made = Client(desk)
    online = Online(desk.settings.home / "online" / f"{NAME}.db")
    made.serve(1, online=online)
    yield made
    online.close()


def direct(client: Client, body: bytes, **headers: bytes) -> bytes | None:
    """Ask the short way and return its whole answer."""

    async def ask() -> bytes | None:
        given = {**HEADERS, **{name.encode(): value for name, value in headers.items()}}
        return client.app.direct.answer(NAME, given, body, [(b"date", b"now")])

    return asyncio.run(ask())


def short(client: Client, body: bytes) -> Any:
    """Return what the short way answers, None where it does not."""
    answer = direct(client, body)
    return None if answer is None else json.loads(answer.partition(b"\r\n\r\n")[2])


def long(client: Client, body: bytes) -> Any:
    """Return the status and the answer of the long way."""
    headers = {"content-type": "application/json"}
    answer = client.ask("POST", URL.decode(), content=body, headers=headers)
    return answer.status_code, answer.json()


def lines(client: Client) -> list[dict[str, Any]]:
    """Return what is on record, and begin anew."""
    home = client.desk.settings.home
    client.app.log.close()
    segments = closed_segments(home, NAME)
    found: list[dict[str, Any]] = read(segments).to_pylist()
    for segment in segments:
        segment.path.unlink()
    for line in found:
        line["features"] = json.loads(line["features"])
        for name in ("request_id", "at", "latency_us", "model_us", "segment", "line"):
            del line[name]
    return found


TAKEN: list[dict[str, Any]] = [
    {"features": ROW},
    {"features": {**ROW, "region": "unseen", "income": None}},
    {"features": dict.fromkeys(ROW)},
    {"features": {name: ROW[name] for name in reversed(ROW)}},
    {"features": {**ROW, "income": -1e300, "jobs": -(1 << 63)}},
    {"features": {**ROW, "income": 3}},
    {"features": {**ROW, "jobs": 2.0}},
    {"features": {**ROW, "region": 'a"b\u2028ä'}},
    {"features": ROW, "entity": 99},
    {"features": ROW, "entity": None},
    {"entity": 1},
    {"entity": 3},
    {"entity": 5},
]
LEFT: list[Any] = [
    {"entity": 2},
    {"entity": 4},
    {"entity": 99},
    {"entity": "1"},
    {"entity": None},
    {"entity": True},
    {"entity": 1, "features": {"income": 5.0}},
    {"features": {**ROW, "jobs": 1.5}},
    {"features": {**ROW, "jobs": 1e300}},
    {"features": {**ROW, "more": 1}},
    {"features": {"income": 1.0}},
    {"features": None},
    {"more": 1},
    {},
    [],
    1,
]


@pytest.mark.parametrize("body", TAKEN, ids=lambda body: json.dumps(body)[:60])
def test_both_ways_give_the_same_answer_and_the_same_line(
    client: Client, body: dict[str, Any]
) -> None:
    content = json.dumps(body).encode()
    mine = short(client, content)
    assert mine is not None
    (line,) = lines(client)
    status, answer = long(client, content)
    assert status == 200
    assert mine.pop("request_id") != answer.pop("request_id")
    assert mine == answer
    assert lines(client) == [line]
    again = short(client, content)  # by the row that is kept, where it is an entity's
    assert again.pop("request_id")
    assert again == answer
    assert lines(client) == [line]


def test_a_key_of_text_is_read_as_ingestion_reads_it(client: Client) -> None:
    entity = msgspec.structs.replace(client.use_case.entity, type="string")
    client.use_case = msgspec.structs.replace(client.use_case, entity=entity)
    online = Online(client.desk.settings.home / "online" / f"{NAME}.db")
    client.serve(2, online=online)
    plain = short(client, b'{"entity": "1"}')
    assert short(client, b'{"entity": "1 "}') is None
    status, answer = long(client, b'{"entity": "1 "}')
    assert (status, answer["entity"]) == (200, "1")
    assert answer["score"] == plain["score"]
    assert [line["entity"] for line in lines(client)] == ["1", "1"]
    status, answer = long(client, b'{"entity": " "}')
    assert (status, answer["error"]["field"]) == (422, "entity")
    online.close()


@pytest.mark.parametrize("body", LEFT, ids=lambda body: json.dumps(body)[:60])
def test_what_is_not_plain_is_left_without_a_trace(client: Client, body: Any) -> None:
    assert short(client, json.dumps(body).encode()) is None
    assert lines(client) == []
    text, _ = client.app.metrics.render("")
    assert b"evergreen_answers_total{" not in text
    assert b"evergreen_events_total{" not in text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"entity": NaN}',
        b'{"entity": 1} x',
        b'{"features": {"a": "\xff"}}',
        b'{"features":{"income":' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
        b'{"features": {"income": 1e400, "jobs": 1, "region": "x", "new": true}}',
    ],
)
def test_what_is_no_json_is_left_too(client: Client, body: bytes) -> None:
    assert direct(client, body) is None
    assert long(client, body)[0] in (400, 422)
    assert lines(client) == []


@pytest.mark.parametrize(
    "first", ["1", "null", '{"income": 1e400}', '["]', '"entity"', '"\\ud800"']
)
@pytest.mark.parametrize("entity", ["", '"entity": 1, ', '"entity": null, '])
def test_of_two_rows_neither_way_passes_over_the_first(
    client: Client, first: str, entity: str
) -> None:
    name = '"feature\\u0073"' if first == "1" else '"features"'
    body = f'{{{entity}{name}: {first}, "features": {json.dumps(ROW)}}}'.encode()
    assert direct(client, body) is None
    assert long(client, body)[0] in (400, 422)
    assert lines(client) == []


def test_two_equal_names_are_logged_as_the_model_saw_them(client: Client) -> None:
    row = json.dumps(ROW)[:-1] + ', "income": 7.5}'
    twice = short(client, b'{"features": ' + row.encode() + b"}")
    once = short(client, json.dumps({"features": {**ROW, "income": 7.5}}).encode())
    assert twice["score"] == once["score"]
    assert lines(client)[0]["features"] == {**ROW, "income": 7.5}


def test_a_body_of_several_lines_is_one_line_of_the_log(client: Client) -> None:
    assert short(client, json.dumps({"features": ROW}, indent=2).encode())
    assert [line["features"] for line in lines(client)] == [ROW]


def test_an_answer_is_http(client: Client) -> None:
    answer = direct(client, json.dumps({"features": ROW}).encode(), **{"x-request-id": b"mine-1"})
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"date: now",
        b"content-type: application/json",
        b"x-content-type-options: nosniff",
        b"content-length: %d" % len(body),
        b"x-request-id: mine-1",
    ]
    assert json.loads(body)["request_id"] == "mine-1"
    bad = direct(client, json.dumps({"features": ROW}).encode(), **{"x-request-id": b"a\tb"})
    assert bad is not None
    assert b"a\tb" not in bad


def test_answers_are_counted_as_on_the_long_way(client: Client) -> None:
    short(client, json.dumps({"features": ROW}).encode())
    long(client, json.dumps({"features": ROW}).encode())
    text = client.app.metrics.render("")[0].decode()
    assert f'answers_total{{route="predict",status="200",use_case="{NAME}"}} 2.0' in text
    assert f'evergreen_prediction_seconds_count{{use_case="{NAME}"}} 2.0' in text


@pytest.mark.parametrize(
    ("url", "changed"),
    [
        (b"/v1/nobody/predict", {}),
        (URL + b"?a=1", {}),
        (URL + b"/", {}),
        (URL, {b"content-type": b"text/plain"}),
        (URL, {b"content-type": None}),
        (URL, {b"content-encoding": b"gzip"}),
        (URL, {b"transfer-encoding": b"chunked"}),
        (URL, {b"expect": b"100-continue"}),
        (URL, {b"upgrade": b"h2c"}),
        (URL, {b"connection": b"close"}),
        (URL, {b"content-length": None}),
        (URL, {b"content-length": b"0"}),
        (URL, {b"content-length": b"65537"}),
    ],
)
def test_other_requests_are_not_taken(
    client: Client, url: bytes, changed: dict[bytes, bytes | None]
) -> None:
    assert client.app.direct.takes(URL, HEADERS) == NAME
    headers = {name: value for name, value in {**HEADERS, **changed}.items() if value is not None}
    assert client.app.direct.takes(url, headers) == ""


@pytest.mark.parametrize("host", [b"evil.example", b"", b"node.example.evil"])
def test_a_host_that_is_not_served_is_not_answered(client: Client, host: bytes) -> None:
    body = json.dumps({"features": ROW}).encode()
    assert direct(client, body, host=b"NODE.example:8000") is not None
    assert direct(client, body, host=host) is None
    assert client.app.direct.answer(NAME, {}, body, []) is None


def test_hosts_that_a_client_makes_up_are_not_kept_without_end(client: Client) -> None:
    client.app._hosts = None
    body = json.dumps({"features": ROW}).encode()
    for number in range(200):
        assert direct(client, body, host=b"h%d" % number) is not None
    assert len(client.app.direct._hosts) < 100


@pytest.mark.parametrize(("state", "value"), [("draining", True), ("started", False)])
def test_a_node_that_starts_or_ends_answers_the_long_way(
    client: Client, state: str, value: bool
) -> None:
    setattr(client.app.table, state, value)
    assert direct(client, json.dumps({"features": ROW}).encode()) is None


def test_a_use_case_that_is_forgotten_is_not_taken(client: Client) -> None:
    client.app.forget(NAME)
    assert client.app.direct.takes(URL, HEADERS) == ""
    assert direct(client, json.dumps({"features": ROW}).encode()) is None


def test_only_a_champion_in_this_process_is_asked_directly(client: Client) -> None:
    loaded = client.serve(1)
    assert client.app.direct.takes(URL, HEADERS) == NAME
    for champion in (None, replace(loaded, scorer=None, remote=object())):  # type: ignore[arg-type]
        client.serve(1, champion=champion)
        assert client.app.direct.takes(URL, HEADERS) == ""


def test_a_model_of_a_kind_that_is_asked_by_rows_alone_goes_the_long_way(client: Client) -> None:
    champion = Loaded(9, "sha256:9", "fs", "2026-03-01", scorer=RateModel(rate_files()))
    client.serve(1, champion=champion)
    assert client.app.direct.takes(URL, HEADERS) == ""


class Sick:
    """A model whose answers are no probabilities, or that fails."""

    def __init__(self, answer: float | Exception) -> None:
        self.features, self._answer = list(ROW), answer

    def one(self, row: object) -> float:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    of_values = one


@pytest.mark.parametrize("answer", [float("nan"), ZeroDivisionError("sick")])
def test_a_sick_model_is_answered_for_on_the_long_way(
    client: Client, answer: float | Exception
) -> None:
    previous = client.serve(1)
    champion = Loaded(9, "sha256:9", "fs", "2026-03-01", scorer=Sick(answer))
    client.serve(1, champion=champion, previous=previous)
    assert client.app.direct.takes(URL, HEADERS) == NAME
    assert direct(client, json.dumps({"features": ROW}).encode()) is None
    assert lines(client) == []


def test_a_log_that_cannot_be_written_answers_nothing(client: Client, tmp_path: Path) -> None:
    short(client, json.dumps({"features": ROW}).encode())
    lines(client)
    log = client.app.log._books[NAME].writer.log
    log._folder = tmp_path / "file"
    log._folder.write_text("no folder")
    assert direct(client, json.dumps({"features": ROW}).encode()) is None
    assert long(client, json.dumps({"features": ROW}).encode())[0] == 503


def test_nothing_fails_behind_the_line(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no answer can be made")

    monkeypatch.setattr("include.serving.direct.describe_answer", broken)
    assert direct(client, json.dumps({"features": ROW}).encode()) is None
    assert lines(client) == [], "what was not answered would be on record"


def test_an_answer_that_could_not_be_logged_says_so(client: Client, tmp_path: Path) -> None:
    rules = msgspec.structs.replace(client.use_case.log, when_full="flag")
    client.use_case = msgspec.structs.replace(client.use_case, log=rules)
    client.serve(1)
    assert short(client, json.dumps({"features": ROW}).encode())["flags"] == []
    lines(client)
    log = client.app.log._books[NAME].writer.log
    log._folder = tmp_path / "file"
    log._folder.write_text("no folder")
    body = json.dumps({"features": ROW}).encode()
    assert short(client, body)["flags"] == ["unlogged"]
    assert long(client, body)[1]["flags"] == ["unlogged"]


def test_rows_that_were_read_are_kept_until_others_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path)
    desk.publish({number: (NOW, {**ROW, "income": float(number)}) for number in range(9)})
    client = Client(desk)
    online = Online(desk.settings.home / "online" / f"{NAME}.db")
    client.serve(1, online=online)
    asked, get = list[str](), online.get
    monkeypatch.setattr(
        online, "get", lambda kind, entity: (asked.append(entity), get(kind, entity))[1]
    )

    async def ask(entity: int) -> Any:
        answer = client.app.direct.answer(NAME, HEADERS, b'{"entity": %d}' % entity, [])
        return None if answer is None else json.loads(answer.partition(b"\r\n\r\n")[2])

    async def watch() -> None:
        for entity in (1, 2, 1, 2, 1):
            assert (await ask(entity))["entity"] == entity
        assert asked == ["1", "2"]
        assert await ask(77) is None  # who is not known now may be so at once
        assert await ask(77) is None
        assert asked[2:] == ["77", "77"]
        # Kept or not, a row is as old as it is.
        before, horizon = (await ask(1))["as_of"], client.app._horizons[NAME]
        late = round((NOW + timedelta(days=36)).timestamp() * 1e6)
        with monkeypatch.context() as later:
            later.setattr(horizon, "now", lambda: (late, late))
            assert await ask(1) is None
        # A state is held for a moment, and then nothing of it is kept.
        # (The writer waits for whoever holds one, so the loop must go on.)
        await asyncio.to_thread(desk.publish, {1: (NOW + timedelta(hours=1), ROW)})
        async with asyncio.timeout(60):
            while (await ask(1))["as_of"] == before:
                await asyncio.sleep(0.001)
        # Another file in its place has a first version of its own.
        for path in (desk.settings.home / "online").iterdir():
            path.unlink()
        desk.publish({1: (NOW + timedelta(hours=2), ROW)})
        online.refresh()
        assert "T02" in (await ask(1))["as_of"]
        assert await ask(2) is None

    asyncio.run(watch())
    online.close()


@pytest.mark.parametrize(("name", "bound"), [("MAX_ROWS", 3), ("MAX_ROW_BYTES", 200)])
def test_rows_are_kept_up_to_a_bound(
    client: Client, monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    monkeypatch.setattr(direct_plan, name, bound)
    client.serve(1, online=client.app.table.served[NAME].online)
    kept = client.app.direct._plans[NAME].rows._rows

    async def ask() -> None:
        for _ in range(20):
            for entity in (1, 3, 5):
                body = b'{"entity": %d}' % entity
                assert client.app.direct.answer(NAME, HEADERS, body, []) is not None
                assert 0 < len(kept) <= 3
                assert sum(len(row.content) for row in kept.values()) <= max(200, bound)

    asyncio.run(ask())


def test_rows_that_are_published_are_answered_a_moment_later(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.publish({1: (NOW, ROW)})
    client = Client(desk)
    online = Online(desk.settings.home / "online" / f"{NAME}.db")
    client.serve(1, online=online)
    other = {**ROW, "income": -5.0}

    async def ask() -> float:
        answer = client.app.direct.answer(NAME, HEADERS, b'{"entity": 1}', [])
        assert answer is not None
        return float(json.loads(answer.partition(b"\r\n\r\n")[2])["score"])

    async def watch() -> None:
        before = await ask()
        await asyncio.to_thread(desk.publish, {1: (NOW, other)})
        async with asyncio.timeout(60):
            while await ask() == before:
                await asyncio.sleep(0.001)
        # What a node that is asked all the time holds is moved out of the log nevertheless.
        wal = desk.settings.home / "online" / f"{NAME}.db-wal"
        async with asyncio.timeout(60):
            while True:
                await asyncio.to_thread(desk.publish, {1: (NOW, ROW)})
                await ask()
                if wal.stat().st_size == 0:
                    break

    asyncio.run(watch())
    online.close()
