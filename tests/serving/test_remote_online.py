"""A started node whose online features are in Redis: what it answers while Redis does not."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from include.serving import remote_online
from include.serving.reconciler import Reconciler
from tests.builders.application import Client
from tests.builders.redis_server import Server, own_server
from tests.builders.serving import NAME, NOW, ROW, Answer, Desk, Node, until
from tests.builders.stopwatch import Stopwatch

ROWS = {number: (NOW, {**ROW, "income": 1000.0 * number}) for number in range(1, 9)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with own_server(tmp_path_factory.mktemp("redis")) as own:
        yield own


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Desk:
    made = Desk(tmp_path_factory.mktemp("node"), online_url=SecretStr(server.url))
    made.publish(ROWS)
    made.train(1)
    made.record_route(champion=1)
    return made


@pytest.fixture(scope="module")
def node(desk: Desk) -> Iterator[Node]:
    with desk.node() as running:
        running.serves(1)
        answers(running)
        yield running


def answers(node: Node) -> None:
    """Wait until entities are answered."""
    until(lambda: node.predict(entity=1).status == 200, what="answer of an entity")


def ask(node: Node, **body: Any) -> Answer:
    """Ask until the store has answered in time: the machine may have other things to do."""
    found: list[Answer] = []

    def told() -> bool:
        found.append(node.predict(**body))
        error = found[-1].body.get("error", {})
        return bool(error.get("code") != "store_away")

    until(told, what="answer of the store in time")
    return found[-1]


def by_row(node: Node, entity: int) -> float:
    """Return the score of an entity's row, sent with the request."""
    return float(node.predict(features=ROWS[entity][1]).body["score"])


def test_an_entity_is_answered_as_its_row_is(node: Node) -> None:
    for entity in ROWS:
        answer = ask(node, entity=entity).body
        assert answer["score"] == by_row(node, entity)
        assert (answer["as_of"], answer["flags"]) == (NOW.isoformat(), [])
    unknown = ask(node, entity=99)
    assert (unknown.status, unknown.body["error"]["code"]) == (404, "unknown_entity")
    part = ask(node, entity=1, features={"income": 3000.0})
    assert part.body["score"] == by_row(node, 3)


def test_a_batch_asks_once(node: Node, server: Server) -> None:
    def asked() -> int:
        stats: dict[str, Any] = server.client.info("commandstats")  # type: ignore[assignment]
        return int(stats["cmdstat_eval"]["calls"])

    entities = [*ROWS, 99, *ROWS]
    rows = [{"entity": entity} for entity in entities] + [{"features": ROW}]

    def answered() -> bool:
        before = asked()
        results = node.post(f"/v1/{NAME}/batch", json={"rows": rows}).body["results"]
        found = [one.get("score") or one["error"]["code"] for one in results]
        if "store_away" in found:
            return False
        assert asked() == before + 1
        right = {entity: by_row(node, entity) for entity in ROWS} | {99: "unknown_entity"}
        assert found[:-1] == [right[entity] for entity in entities]
        return True

    until(answered, what="answer of the store in time")
    assert node.post(f"/v1/{NAME}/batch", json={"rows": rows[-1:]}).status == 200


def test_rows_of_a_publication_that_came_meanwhile_are_answered_at_once(
    node: Node, desk: Desk
) -> None:
    desk.publish({**ROWS, 50: (NOW, ROW)})
    assert ask(node, entity=50).status == 200
    desk.publish(ROWS)
    assert ask(node, entity=50).status == 404


def test_while_it_hangs_entities_are_refused_quickly_and_rows_go_on(
    node: Node, server: Server
) -> None:
    server.send(signal.SIGSTOP)
    try:
        for _ in range(10):
            stopwatch = Stopwatch()
            refused = node.predict(entity=1)
            assert (refused.status, refused.body["error"]["code"]) == (503, "store_away")
            assert refused.body["error"]["flags"] == ["degraded"]
            assert refused.headers["retry-after"] == "2"
            assert stopwatch.seconds < 1.0
            assert node.predict(features=ROW).status == 200
            assert node.predict(entity=1, features=ROW).status == 200, "the row is whole"
        batch = {"rows": [{"entity": 1}, {"features": ROW}]}
        first, second = node.post(f"/v1/{NAME}/batch", json=batch).body["results"]
        assert (first["error"]["code"], "score" in second) == ("store_away", True)
    finally:
        server.send(signal.SIGCONT)
    answers(node)
    text = node.get("/metrics").body
    assert f'evergreen_events_total{{event="store_away",use_case="{NAME}"}}' in text
    assert 'event="champion_failed"' not in text, "that the store is away is no model's fault"


def test_what_was_flushed_is_no_unknown_entity(node: Node, desk: Desk, server: Server) -> None:
    server.client.flushall()

    def told() -> bool:
        refused = node.predict(entity=1)
        assert (refused.status, refused.body["error"]["code"]) == (503, "store_away")
        return "run materialize_features" in node.log.read_text()

    until(told, what="line on what is lost")
    refused = node.predict(entity=1)
    assert str(server.port) not in str(refused.body), "where the store is, is nothing for callers"
    assert node.predict(features=ROW).status == 200
    desk.publish(ROWS)
    answers(node)


def test_killed_and_started_again_under_load_no_answer_is_wrong(
    node: Node, desk: Desk, server: Server
) -> None:
    right = {entity: by_row(node, entity) for entity in ROWS}
    seen: Counter[str] = Counter()
    wrong: list[object] = []
    over = threading.Event()

    def ask(entity: int) -> None:
        with httpx.Client(base_url=node.url, timeout=60) as client:
            while not over.is_set():
                reply = client.post(f"/v1/{NAME}/predict", json={"entity": entity})
                if reply.status_code == 200 and reply.json()["score"] == right[entity]:
                    seen["right"] += 1
                elif reply.status_code == 503:
                    seen[reply.json()["error"]["code"]] += 1
                else:
                    wrong.append((entity, reply.text))
                rows = client.post(f"/v1/{NAME}/predict", json={"features": ROWS[entity][1]})
                if rows.status_code != 200 or rows.json()["score"] != right[entity]:
                    wrong.append(rows.text)

    threads = [threading.Thread(target=ask, args=(entity,)) for entity in ROWS]
    for thread in threads:
        thread.start()
    try:
        until(lambda: seen["right"] > 50, what="answers before")
        server.kill()
        until(lambda: seen["store_away"] > 50, what="refusals")
        server.start()  # it is empty
        desk.publish(ROWS)
        before = seen["right"]
        until(lambda: seen["right"] > before + 50, what="answers after it")
        server.send(signal.SIGSTOP)
        away = seen["store_away"]
        until(lambda: seen["store_away"] > away + 50, what="refusals while it hangs")
        server.send(signal.SIGCONT)
        before = seen["right"]
        until(lambda: seen["right"] > before + 50, what="answers after it hung")
    finally:
        over.set()
        server.send(signal.SIGCONT)
        for thread in threads:
            thread.join()
    assert wrong == []
    assert set(seen) == {"right", "store_away"}


def test_where_the_use_case_says_so_it_scores_without_its_store(
    node: Node, desk: Desk, server: Server
) -> None:
    desk.write_use_case(store="score")
    desk.apply()
    try:
        server.send(signal.SIGSTOP)
        until(lambda: node.predict(entity=1).status == 200, what="score without the store")
        answer = node.predict(entity=1).body
        assert answer["flags"] == ["degraded", "fallback"]
        assert (answer["as_of"], answer["age_seconds"]) == (None, None)
        assert answer["score"] == node.predict(features=dict.fromkeys(ROW)).body["score"]
        part = node.predict(entity=1, features={"income": 5.0}).body
        row = dict.fromkeys(ROW) | {"income": 5.0}
        assert part["score"] == node.predict(features=row).body["score"]
    finally:
        server.send(signal.SIGCONT)
        desk.write_use_case()
        desk.apply()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_node_starts_and_ends_although_its_store_does_not_answer(
    tmp_path: Path, hangs: bool
) -> None:
    with own_server(tmp_path) as own:
        made = Desk(tmp_path / "home", online_url=SecretStr(own.url))
        made.train(1)
        made.record_route(champion=1)
        if hangs:
            own.send(signal.SIGSTOP)
        else:
            own.kill()
        with made.node() as node:
            node.serves(1)
            assert node.predict(features=ROW).status == 200
            assert node.predict(entity=1).body["error"]["code"] == "store_away"
            assert node.stop() == 0


@pytest.mark.anyio
async def test_a_node_is_ready_once_its_store_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the first requests by entity, right after a restart, would find no connection."""
    monkeypatch.setattr(remote_online, "PROBE_DEADLINE", 5.0)
    with own_server(tmp_path) as own:
        made = Desk(tmp_path / "home", online_url=SecretStr(own.url))
        made.train(1)
        made.record_route(champion=1)
        own.send(signal.SIGSTOP)
        app = Client(made).app
        reconciler = Reconciler(made.settings, app, node="here")
        task = asyncio.create_task(reconciler.run())
        try:
            await reconciler.ready_to_serve(60)
            online = app.table.served[NAME].online
            assert isinstance(online, remote_online.RemoteOnline)
            assert online.tried.is_set()
        finally:
            task.cancel()
            await reconciler.close()
            own.send(signal.SIGCONT)
