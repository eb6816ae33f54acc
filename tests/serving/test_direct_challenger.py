"""The short way to a challenger: a connection waits for its process, and loses nothing by it."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from include.errors import Unavailable
from include.predictions.log import closed_segments
from include.predictions.reading import read
from include.serving import answering
from include.serving.assignment import WHOLE, Assignment
from include.serving.http import EXPLAIN
from include.serving.snapshot import Loaded, Online
from tests.builders.application import Client
from tests.builders.challenger import HANGS, KEY, RELEASE, Challenger, Told, served_release
from tests.builders.counted import by_arms
from tests.builders.serving import FEATURE_SET, NAME, NOW, ROW, Desk
from tests.serving.test_direct_protocol import GET, Site, answer, post, serve

pytestmark = pytest.mark.anyio
Answer = Callable[[Mapping[str, object]], Told]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = Desk(tmp_path_factory.mktemp("apart"))
    made.publish(dict.fromkeys(range(50), (NOW, ROW)))
    return made


@pytest.fixture
async def site(desk: Desk) -> AsyncIterator[Site]:
    client = Client(desk)
    client.app._hosts = frozenset({"localhost"})
    async with serve(Site(client)) as running:
        yield running
    client.app.log.close()
    for segment in closed_segments(desk.settings.home, NAME):
        segment.path.unlink()


def release(
    site: Site,
    answers: Answer = lambda row: 0.125,
    share: int = WHOLE,
    feature_set: str = FEATURE_SET,
) -> Challenger:
    remote = Challenger(answers)
    challenger = Loaded(2, "sha256:two", feature_set, "2026-03-02", remote=remote)
    online = Online(site.client.desk.settings.home / "online" / f"{NAME}.db")
    site.client.serve(
        1, challenger=challenger, release=served_release(share), online=online, generation=3
    )
    return remote


def asked(number: int = 1, *more: str) -> bytes:
    return post(json.dumps({"entity": number}).encode(), *more)


def by_row(*more: str, **changes: Any) -> bytes:
    return post(json.dumps({"features": {**ROW, **changes}}).encode(), *more)


def lines(site: Site) -> list[dict[str, Any]]:
    site.client.app.log.close()
    found: list[dict[str, Any]] = read(
        closed_segments(site.client.desk.settings.home, NAME)
    ).to_pylist()
    return found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def noted(site: Site) -> dict[tuple[str, str], dict[str, int]]:
    return {arms: one.error_kinds for arms, one in by_arms(site.client.app.evidence).items()}


async def test_a_challengers_answer_never_takes_the_long_way(site: Site) -> None:
    remote = release(site)
    for request in (asked(), by_row(), asked(2, "x-request-id: mine"), asked(3)):
        ((status, body),) = await site.ask(request)
        assert (status, body["arm"], body["model_version"]) == (200, "challenger", 2)
        assert (body["score"], body["flags"]) == (0.125, [])
    assert site.reached == []
    assert len(remote.asked) == 4
    found = lines(site)
    assert {(one["assigned"], one["arm"], one["release"]) for one in found} == {
        ("challenger", "challenger", RELEASE)
    }
    assert [one["model_us"] for one in found] == [17] * 4
    assert found[2]["caller_id"] == "mine"
    assert [json.loads(one["features"]) for one in found] == [ROW] * 4
    assert noted(site) == {("challenger", "challenger"): {}}


async def test_each_goes_to_its_own_arm_on_one_connection(site: Site) -> None:
    release(site, share=5000)
    reader, writer = await site.connect()
    places, arms = Assignment(KEY), set()
    for number in range(50):
        writer.write(asked(number))
        _, body = await answer(reader)
        assert body["arm"] == ("challenger" if places.place(number) < 5000 else "champion")
        assert body["entity"] == number
        arms.add(body["arm"])
    writer.close()
    assert arms == {"champion", "challenger"}
    assert site.reached == []


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Unavailable("dead"), "model_failed"),
        (ValueError("sick"), "model_failed"),
        (HANGS, "model_late"),
        (math.nan, "invalid_score"),
        (1.01, "invalid_score"),
    ],
)
async def test_what_it_fails_at_the_champion_answers_by_the_short_way(
    site: Site, failure: Told, reason: str
) -> None:
    release(site, lambda row: failure)
    for request in (asked(), by_row()):
        ((status, body),) = await site.ask(request)
        assert (status, body["arm"], body["flags"]) == (200, "champion", ["fallback"])
    assert site.reached == []
    assert {(one["assigned"], one["arm"], one["reason"]) for one in lines(site)} == {
        ("challenger", "champion", reason)
    }
    assert noted(site) == {("challenger", "champion"): {reason: 2}}


async def test_a_process_that_takes_no_question_is_passed_over_at_once(site: Site) -> None:
    release(site).busy = True
    ((_, body),) = await site.ask(by_row())
    assert (body["arm"], body["flags"]) == ("champion", ["fallback"])
    assert site.reached == []
    assert noted(site) == {("challenger", "champion"): {"model_failed": 1}}


async def test_a_process_that_has_ended_is_passed_over_at_once(site: Site) -> None:
    release(site)
    client = site.client
    client.serve(1, challenger=None, release=client.app.table.served[NAME].release)
    ((_, body),) = await site.ask(by_row())
    assert (body["arm"], body["flags"]) == ("champion", ["fallback"])
    assert site.reached == []
    assert noted(site) == {("challenger", "champion"): {"model_failed": 1}}


async def test_a_feature_that_the_challenger_alone_lacks_is_counted_by_its_name(
    site: Site,
) -> None:
    release(site).features.append("extra")
    ((_, body),) = await site.ask(by_row())
    assert (body["arm"], body["flags"]) == ("champion", ["fallback"])
    assert noted(site) == {("challenger", "champion"): {"row_lacks_feature": 1}}
    (counts,) = by_arms(site.client.app.evidence).values()
    assert counts.lacks == {"extra": 1}


async def test_where_its_feature_set_is_not_online_the_long_way_says_so(site: Site) -> None:
    release(site, feature_set="another")
    ((_, body),) = await site.ask(asked())
    assert (body["arm"], body["flags"]) == ("champion", ["fallback"])
    assert len(site.reached) == 1
    assert lines(site)[0]["reason"] == "no_features"


async def test_what_is_sent_ahead_keeps_its_order(site: Site) -> None:
    remote = release(site, share=5000)
    remote.seconds = 0.02
    ids = [f"r-{number}" for number in range(40)]
    requests = [asked(number, f"x-request-id: {name}") for number, name in enumerate(ids)]
    whole = b"".join([*requests[:20], GET, *requests[20:]])
    cuts = [0, 700, 1500, 1501, len(whole) // 2, len(whole)]  # wherever a read ends
    pieces = [whole[at:to] for at, to in itertools.pairwise(cuts)]
    answers = await site.ask(*pieces, answers=41)
    assert [status for status, _ in answers] == [200] * 41
    named = [body["request_id"] for _, body in answers if "score" in body]
    assert named == ids
    assert len({one["request_id"] for one in lines(site)}) == 40


async def test_one_at_a_time_ahead_of_its_answer_is_read_when_that_is_sent(site: Site) -> None:
    release(site).seconds = 0.1
    reader, writer = await site.connect()
    names = [f"r-{number}" for number in range(4)]
    for name in names:
        writer.write(asked(1, f"x-request-id: {name}"))
        await writer.drain()
        await asyncio.sleep(0.02)
    assert [(await answer(reader))[1]["request_id"] for _ in names] == names
    writer.close()


async def test_a_client_that_leaves_meanwhile_is_answered_on_record(site: Site) -> None:
    remote = release(site)
    remote.seconds = 0.3
    _, writer = await site.connect()
    writer.write(asked())
    await until(lambda: remote.asked)
    writer.transport.abort()
    await until(lambda: not site.state.connections)
    await until(lambda: noted(site))
    assert [one["arm"] for one in lines(site)] == ["challenger"]


async def test_who_ends_its_own_half_meanwhile_gets_its_answer(site: Site) -> None:
    remote = release(site)
    remote.seconds = 0.05
    reader, writer = await site.connect()
    writer.write(asked())
    await until(lambda: remote.asked)
    writer.write_eof()
    assert (await answer(reader))[1]["arm"] == "challenger"
    assert await reader.read() == b""
    assert site.reached == []
    writer.close()


async def test_a_node_that_ends_answers_who_waits(site: Site) -> None:
    remote = release(site)
    remote.seconds = 0.3
    reader, writer = await site.connect()
    writer.write(asked())
    await until(lambda: remote.asked)
    for connection in list(site.state.connections):
        connection.shutdown()
    assert (await answer(reader))[1]["arm"] == "challenger"
    assert await reader.read() == b""
    writer.close()


async def test_a_step_that_ends_meanwhile_changes_no_answer_in_hand(site: Site) -> None:
    remote = release(site)
    remote.seconds = 0.3
    reader, writer = await site.connect()
    writer.write(asked())
    await until(lambda: remote.asked)
    site.client.serve(1, generation=4)
    assert (await answer(reader))[1]["arm"] == "challenger"
    (line,) = lines(site)
    assert (line["generation"], line["release"]) == (3, RELEASE)
    writer.write(by_row())
    assert (await answer(reader))[1]["arm"] == "champion"
    writer.close()


async def test_a_use_case_that_is_reset_meanwhile_is_known_no_more(site: Site) -> None:
    remote = release(site)
    remote.seconds = 0.3
    reader, writer = await site.connect()
    writer.write(asked())
    await until(lambda: remote.asked)
    site.client.app.forget(NAME)
    assert (await answer(reader))[0] == 404
    writer.close()


async def test_a_full_disk_is_told_by_the_long_way(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(site).seconds = 0.1

    def fail(*_: object) -> bool:
        raise Unavailable("no room")

    monkeypatch.setattr(site.client.app.log, "put", fail)
    ((status, _),) = await site.ask(asked())
    assert status == 503
    assert len(site.reached) == 1


async def test_who_asks_for_an_explanation_takes_the_long_way(site: Site) -> None:
    release(site)
    await site.ask(asked(1, f"{EXPLAIN.decode()}: 1"))
    assert len(site.reached) == 1


def test_a_challenger_is_waited_for_less_long_than_the_slo_allows() -> None:
    assert answering.CHALLENGER_SECONDS <= 0.1
