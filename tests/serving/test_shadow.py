"""What the champion answered is asked of the challenger too, and nobody waits for it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import pytest

from include.deployment.release_plan import PAIRS_OF_ONE
from include.errors import Unavailable
from include.predictions.line import LoggedLine, read_line
from include.predictions.log import folder
from include.predictions.window_counts import (
    CHALLENGER,
    CHAMPION,
    DIFFERENCE_SUM,
    ERRORS,
    INVALID,
    PAIRED,
    REQUESTS,
    SCORED,
    SHADOW,
    Counts,
)
from include.serving import mirrored, shadow
from include.serving.answer_log import Asked
from include.serving.assignment import PAIRS, WHOLE, Assignment
from include.serving.child_link import Done, Late, Reply
from include.serving.mirrored import BATCH_ROWS, Mirrored, Step
from include.serving.snapshot import Loaded, RemoteScore, Served, ServedRelease
from tests.builders.application import Client
from tests.builders.counted import by_arms
from tests.builders.serving import NAME, ROW

pytestmark = pytest.mark.anyio
KEY = bytes(range(16))
RELEASE = ServedRelease(
    "a" * 12,
    0,
    "shadow",
    0,
    KEY,
    places=Assignment(KEY, ["77"]),
    pairs=2500,
    sample=Assignment(KEY, ["77"], purpose=PAIRS),
)
CANARY = replace(RELEASE, mode="canary", step=1, share=500)


@dataclass
class Remote:
    """A challenger's process that answers when the test says so, or at once."""

    reply: Callable[[dict[str, Any]], Reply | Unavailable] | None = None
    features: list[str] = field(default_factory=lambda: list(ROW))
    alive: bool = True
    takes: bool = True
    asked: list[tuple[dict[str, Any], Done, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.on_end: Callable[[], None] = lambda: None

    def post(self, row: bytes, done: Done, seconds: float) -> bool:
        if not self.takes:
            return False
        assert b"\n" not in row
        given = json.loads(row)
        self.asked.append((given, done, seconds))
        if self.reply is not None:
            asyncio.get_running_loop().call_soon(done, self.reply(given))
        return True

    async def ask(self, row: dict[str, Any], **_: object) -> Any:
        assert self.reply is not None, "no caller asks the challenger"
        self.asked.append((row, lambda reply: None, 0.0))
        reply = self.reply(row)
        assert isinstance(reply, Reply)
        assert reply.score is not None
        return RemoteScore(reply.score, reply.micros)

    def close(self) -> None:
        """Nothing is there."""


class Node:
    """An application whose challenger is in a shadow step."""

    def __init__(self, client: Client, remote: Remote, release: ServedRelease = RELEASE) -> None:
        self.client, self.app, self.remote = client, client.app, remote
        champion = client.serve(1)
        self.challenger = Loaded(2, "d2", champion.feature_set, "2026-03-02", remote=remote)
        self.served = Served(
            client.use_case,
            generation=2,
            champion=champion,
            challenger=self.challenger,
            release=release,
        )
        self.app.install(self.served)

    async def ask(self, path: str = "predict", **body: Any) -> Any:
        import httpx

        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://node.example") as client:
            response = await client.post(f"/v1/{NAME}/{path}", json=body)
            assert response.status_code == 200, response.text
            return response.json()

    def mirror(self, count: int, **changes: Any) -> None:
        """Mirror requests as the short way does."""
        row = json.dumps(ROW).encode()
        requests = []
        for number in range(count):
            entity = changes.get("entity", number)
            asked = Asked(f"req-{number:x}", None)
            requests.append(Mirrored(self.served, asked, entity, row, row, 0.25))
        self.app.shadow.mirror(self.served, requests)

    async def settled(self) -> dict[str, Any]:
        """Wait until all that waits was sent, or failed; return what the health page says."""
        shadow, step = self.app.shadow, self.app.shadow._steps[NAME]

        def is_settled() -> bool:
            # Rows are found by tasks of the loop: one that was only made has asked nobody yet.
            are_found = not step.waiting and not shadow._finding
            return are_found and not (step.sent and self.remote.reply)

        await until(is_settled)
        return dict(self.app.shadow.describe(NAME))

    def counts(self) -> Counts:
        found = by_arms(self.app.evidence)
        (mirrored,) = [one for (assigned, _), one in found.items() if assigned == SHADOW]
        return mirrored

    def lines(self) -> list[LoggedLine]:
        self.app.shadow.put_lines()
        return [
            read_line("s", number, text)
            for path in sorted(folder(self.client.desk.settings.home, NAME).iterdir())
            for number, text in enumerate(path.read_bytes().splitlines())
        ]


async def until(condition: Callable[[], object]) -> None:
    """Wait for what turns of the loop bring: of a busy machine they may take as long as a pause."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def scored(score: float) -> Callable[[dict[str, Any]], Reply]:
    return lambda row: Reply(score=score, micros=40)


@pytest.fixture
def make(client: Client, asked_desk: Any) -> Callable[..., Node]:
    for path in folder(asked_desk.settings.home, NAME).glob("*"):
        path.unlink()
    return lambda remote=None, release=RELEASE: Node(
        client, remote or Remote(scored(0.75)), release
    )


async def test_a_row_is_asked_after_its_answer_and_both_scores_are_a_pair(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "PUMP_SECONDS", 3600.0)  # it is sent when the test says so
    node = make(Remote())
    answer = await node.ask(features=ROW)
    assert answer["model_version"] == 1
    assert node.remote.asked == []  # the answer is there, and nothing was asked yet
    node.app.shadow._pump()
    await node.settled()
    ((row, done, seconds),) = node.remote.asked
    assert (row, seconds) == (ROW, mirrored.SECONDS)
    done(Reply(score=0.75, micros=40))
    counts = node.counts()
    assert (counts.column(REQUESTS), counts.column(ERRORS)) == (1, 0)
    assert sum(pair[PAIRED] for pair in counts.pairs) == 1
    answered, shadowed = node.lines()
    assert answered.outcome == "answered"
    assert (shadowed.outcome, shadowed.score, shadowed.model_us) == ("shadow", 0.75, 40)
    assert (shadowed.version, shadowed.assigned, shadowed.arm) == (2, CHAMPION, CHALLENGER)
    assert shadowed.request_id == answered.request_id
    assert (shadowed.release, shadowed.step) == (RELEASE.id, 0)


async def test_the_short_way_mirrors_what_it_answered(make: Callable[..., Node]) -> None:
    node = make()
    body = json.dumps({"features": ROW}, indent=1).encode()  # its line feeds end no question
    assert node.app.direct.answer(NAME, {b"host": b"node.example"}, body, []) is not None
    assert node.remote.asked == []
    assert (await node.settled())["answered"] == 1
    assert node.remote.asked[0][0] == ROW
    assert sum(pair[PAIRED] for pair in node.counts().pairs) == 1


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(score=math.nan), "invalid_score"),
        (Reply(score=1.5), "invalid_score"),
        (Reply(error="ValueError"), "model_failed"),
        (Late("late"), "model_late"),
        (Unavailable("its process has ended"), "model_failed"),
    ],
)
async def test_what_a_challenger_fails_at_is_counted_and_logged(
    make: Callable[..., Node], reply: Reply | Unavailable, error: str
) -> None:
    node = make(Remote(lambda row: reply))
    answer = await node.ask(features=ROW)
    assert (answer["model_version"], answer["flags"]) == (1, [])
    assert (await node.settled())["failed"] == 1
    counts = node.counts()
    assert counts.error_kinds == {error: 1}
    assert counts.column(ERRORS) == 1
    assert counts.column(INVALID) == (error == "invalid_score")
    assert counts.pairs == []
    line = node.lines()[-1]
    assert (line.outcome, line.reason, line.score) == ("shadow", error, None)


async def test_a_row_that_the_challenger_cannot_read_is_not_its_failure(
    make: Callable[..., Node],
) -> None:
    node = make(Remote(lambda row: Reply(feature="income", error="is missing")))
    node.mirror(1)
    await node.settled()
    assert node.counts().lacks == {"income": 1}
    assert node.counts().column(ERRORS) == 0


async def test_a_process_that_takes_no_question_fails_each(make: Callable[..., Node]) -> None:
    node = make(Remote(takes=False))
    node.mirror(5)
    assert (await node.settled())["failed"] == 5
    assert node.counts().error_kinds == {"model_failed": 5}


async def test_while_its_process_is_gone_each_fails(make: Callable[..., Node]) -> None:
    node = make()
    node.served = replace(node.served, challenger=None)
    node.app.install(node.served)
    node.mirror(5)
    assert (await node.settled())["failed"] == 5
    assert node.counts().error_kinds == {"model_failed": 5}
    assert [(line.outcome, line.version) for line in node.lines()] == [("shadow", None)] * 5


async def test_a_challenger_with_other_features_gets_its_own_row(
    make: Callable[..., Node], asked_desk: Any
) -> None:
    node = make(Remote(scored(0.5), features=["income", "wealth"]))
    row = json.dumps(ROW | {"wealth": 3}).encode()
    lacking = json.dumps(ROW).encode()
    for sent in (row, lacking):
        node.app.shadow.mirror(
            node.served, [Mirrored(node.served, Asked("req-1", None), None, lacking, sent, 0.25)]
        )
    assert (await node.settled())["failed"] == 1
    assert [asked[0] for asked in node.remote.asked] == [{"income": ROW["income"], "wealth": 3}]
    assert node.counts().lacks == {"wealth": 1}


class Away:
    """Online features that cannot be read."""

    is_remote: ClassVar[Literal[False]] = False

    def describe(self, feature_set: str) -> None:
        raise Unavailable(feature_set)

    def get(self, feature_set: str, entity: str) -> None:
        raise Unavailable(feature_set)


@pytest.mark.parametrize(
    ("release", "reads", "sent"),
    [(RELEASE, [*ROW, "wealth"], ROW), (replace(CANARY, pairs=WHOLE), ["wealth"], {"wealth": 3})],
)
async def test_what_is_asked_behind_an_answer_without_its_features_is_no_pair(
    make: Callable[..., Node], release: ServedRelease, reads: list[str], sent: dict[str, Any]
) -> None:
    """The answer came by what the caller sent; the other model reads what the store would have."""
    node = make(Remote(scored(0.9), features=reads), release)
    fallback = msgspec.structs.replace(node.served.use_case.fallback, store="score")
    use_case = msgspec.structs.replace(node.served.use_case, fallback=fallback)
    types = {**use_case.feature_types, "wealth": "int64"}
    node.served = replace(node.served, use_case=use_case, online=Away(), row_types=types)
    node.app.install(node.served)
    entity = entity_of(release, CHALLENGER, is_paired=True) if release.share else 1
    answer = await node.ask(entity=entity, features=sent)
    assert (answer["arm"], answer["flags"]) == (CHALLENGER if release.share else CHAMPION, [])
    assert (await node.settled())["failed"] == 1
    assert len(node.remote.asked) == (release.share > 0), "no more than it answers itself"
    counts = node.counts()
    assert (counts.pairs, counts.column(SCORED), counts.column(ERRORS)) == ([], 0, 0)
    assert counts.error_kinds == ({} if release.share else {"store_away": 1})
    answered, shadowed = node.lines()
    assert (answered.outcome, answered.reason) == ("answered", "")
    assert (shadowed.outcome, shadowed.reason, shadowed.score) == ("shadow", "store_away", None)


async def test_a_batch_is_mirrored_up_to_a_bound_and_in_no_bin_of_times(
    make: Callable[..., Node],
) -> None:
    node = make()
    answer = await node.ask("batch", rows=[{"features": ROW}] * (BATCH_ROWS + 10))
    assert len(answer["results"]) == BATCH_ROWS + 10
    assert (await node.settled())["answered"] == BATCH_ROWS
    assert sum(node.counts().time_bins) == 0


@pytest.mark.parametrize(
    "release",
    [None, replace(RELEASE, is_active=False), replace(RELEASE, mode=None, is_active=False)],
)
async def test_without_an_active_step_nothing_is_mirrored(
    make: Callable[..., Node], release: ServedRelease | None
) -> None:
    node = make(release=release)
    await node.ask(features=ROW)
    node.mirror(3)
    await asyncio.sleep(0.03)
    assert node.remote.asked == []


async def test_what_waits_when_the_step_ends_is_asked_no_more(make: Callable[..., Node]) -> None:
    node = make()
    node.mirror(3)
    node.app.install(replace(node.served, release=replace(RELEASE, is_active=False)))
    await asyncio.sleep(0.05)
    assert node.remote.asked == []


async def test_excluded_entities_are_never_mirrored_and_later_steps_mirror_some(
    make: Callable[..., Node],
) -> None:
    excluded = replace(RELEASE, exclude=frozenset(["77"]))
    node = make(release=excluded)
    node.mirror(1, entity=77)
    node.mirror(1, entity=78)
    assert (await node.settled())["answered"] == 1
    canary = make(release=CANARY)
    canary.mirror(200)
    told = await canary.settled()
    assert told["share"] == 25
    assert {asked[2] for asked in canary.remote.asked} == {mirrored.CANARY_SECONDS}
    places = [RELEASE.sample.place(number) for number in range(200)]
    assert told["answered"] == sum(place < 2500 for place in places) > 20


def entity_of(release: ServedRelease, arm: str, *, is_paired: bool) -> int:
    """Return an entity that belongs to an arm, and is in the sample of pairs or not."""
    return next(
        number
        for number in range(10_000)
        if release.assign(number) == arm
        and (release.sample.place(number) < release.pairs) == is_paired
    )


@pytest.mark.parametrize("way", ["short", "long", "batch"])
async def test_what_the_challenger_answered_the_champion_scores_behind_the_answer(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(shadow, "PUMP_SECONDS", 3600.0)  # it is sent when the test says so
    node = make(release=CANARY)
    for is_paired in (True, False):
        row = {"entity": entity_of(CANARY, "challenger", is_paired=is_paired), "features": ROW}
        if way == "short":
            late: list[Any] = []
            body, head = json.dumps(row).encode(), {b"host": b"node.example"}
            node.app.direct.make(NAME, head, body, [], late=late.append)
            await until(lambda late=late: late)  # type: ignore[misc]
            assert node.app.direct.settle(late) is not None
        elif way == "long":
            assert (await node.ask(**row))["arm"] == "challenger"
        else:
            assert (await node.ask("batch", rows=[row]))["results"][0]["arm"] == "challenger"
        assert node.app.shadow._steps[NAME].answered == (not is_paired), "not before the answer"
        node.app.shadow._pump()
        assert (await node.settled())["answered"] == 1, "of the entity in the sample alone"
    assert len(node.remote.asked) == 2, "the challenger is asked for its answers alone"
    counts = node.counts()
    assert sum(pair[PAIRED] for pair in counts.pairs) == 1
    assert counts.column(REQUESTS) == 0
    answered, shadowed = (line for line in node.lines() if line.entity == str(first_paired()))
    assert (answered.outcome, answered.arm, answered.version) == ("answered", CHALLENGER, 2)
    assert (shadowed.outcome, shadowed.arm, shadowed.version) == ("shadow", CHAMPION, 1)
    assert (shadowed.assigned, shadowed.request_id) == (CHALLENGER, answered.request_id)
    assert (shadowed.release, shadowed.step) == (CANARY.id, 1)
    champions = node.served.champion
    assert champions is not None
    assert champions.scorer is not None
    assert shadowed.score == pytest.approx(champions.scorer.one(ROW))
    difference = sum(pair[DIFFERENCE_SUM] for pair in counts.pairs)
    assert difference == round(1000 * (0.75 - champions.scorer.one(ROW)))


def first_paired() -> int:
    return entity_of(CANARY, "challenger", is_paired=True)


async def test_a_champion_that_cannot_score_behind_an_answer_is_no_pair_and_no_error(
    make: Callable[..., Node],
) -> None:
    node = make(Remote(features=["wealth"]), replace(CANARY, pairs=WHOLE))

    def mirror(number: int) -> None:
        asked = Asked(f"req-{number}", None)
        row = b'{"wealth":3}'
        one = Mirrored(node.served, asked, None, row, row, 0.75, CHALLENGER)
        node.app.shadow.mirror(node.served, [one])

    mirror(1)
    assert (await node.settled())["failed"] == 1
    node.served = replace(node.served, champion=None)
    node.app.install(node.served)
    mirror(2)
    assert (await node.settled())["failed"] == 2
    assert node.remote.asked == []
    counts = node.counts()
    assert (counts.pairs, counts.error_kinds, counts.lacks) == ([], {}, {})
    assert [line.reason for line in node.lines()] == ["row_lacks_feature", "model_failed"]


async def test_a_champion_in_its_own_process_is_asked_there_one_at_a_time(
    make: Callable[..., Node],
) -> None:
    node, process = make(release=CANARY), Remote()
    champion = replace(node.served.champion, scorer=None, remote=process)  # type: ignore[type-var]
    node.served = replace(node.served, champion=champion)
    node.app.install(node.served)
    row, entity = json.dumps(ROW).encode(), first_paired()
    node.app.shadow.mirror(
        node.served,
        [
            Mirrored(node.served, Asked(f"req-{n}", None), entity, row, row, 0.75, CHALLENGER)
            for n in range(3)
        ],
    )
    await until(lambda: process.asked)
    await asyncio.sleep(0.1)
    ((asked, done, seconds),) = process.asked  # callers' questions stand behind it
    assert (asked, seconds) == (ROW, mirrored.CANARY_SECONDS)
    done(Reply(score=0.5, micros=40))
    await until(lambda: len(process.asked) == 2)
    assert sum(pair[DIFFERENCE_SUM] for pair in node.counts().pairs) == 250


async def test_an_entity_is_paired_a_few_times_in_a_step_and_requests_without_one_always(
    make: Callable[..., Node],
) -> None:
    node = make(release=replace(CANARY, pairs=WHOLE))
    for entity in (0, 5):
        node.mirror(PAIRS_OF_ONE + 3, entity=entity)
    node.mirror(PAIRS_OF_ONE + 3, entity=None)
    assert (await node.settled())["answered"] == 3 * PAIRS_OF_ONE + 3
    again = replace(CANARY, pairs=WHOLE, step=2)
    node.served = replace(node.served, release=again)
    node.app.install(node.served)
    node.mirror(1, entity=5)
    assert (await node.settled())["answered"] == 1, "another step counts anew"


async def test_without_a_sample_no_canary_step_is_paired(make: Callable[..., Node]) -> None:
    node = make(release=replace(CANARY, pairs=0))
    node.mirror(50)
    await asyncio.sleep(0.03)
    assert node.remote.asked == []


async def test_pairs_that_found_no_room_are_counted_by_whose_they_would_have_been(
    make: Callable[..., Node],
) -> None:
    node = make(Remote(), replace(CANARY, pairs=WHOLE))
    row = json.dumps(ROW).encode()
    requests = [
        Mirrored(node.served, Asked(f"req-{n}", None), n, row, row, 0.75, arm)
        for n, arm in enumerate([CHAMPION] * shadow.MAX_WAITING + [CHALLENGER] * 7)
    ]
    node.app.shadow.mirror(node.served, requests)
    found = by_arms(node.app.evidence)
    dropped = {answering: one.dropped for (_, answering), one in found.items()}
    assert dropped == {CHAMPION: 7}


async def test_a_challenger_that_hangs_holds_few_and_the_rest_is_dropped(
    make: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "TURN_SECONDS", 0.0)
    node = make(Remote())
    node.mirror(shadow.MAX_WAITING + 100)
    await until(lambda: len(node.remote.asked) == mirrored.FIRST_SENT)
    await asyncio.sleep(0.1)
    assert len(node.remote.asked) == mirrored.FIRST_SENT
    assert node.app.shadow.describe(NAME)["dropped"] == 100
    assert node.counts().dropped == 100
    await node.app.shadow.turn()
    assert node.app.shadow.describe(NAME)["share"] == 50
    await node.app.shadow.turn()
    assert node.app.shadow.describe(NAME)["share"] == 50  # nothing was dropped since
    text, _ = node.app.metrics.render("")
    assert b'evergreen_shadows_total{result="dropped",use_case="loans"} 100.0' in text


def test_no_more_are_sent_than_are_answered_in_half_of_the_time() -> None:
    step = Step.of(RELEASE)
    assert step.room == mirrored.FIRST_SENT
    step.answered = 1000
    assert step.room == mirrored.MAX_SENT
    step.micros = 100_000.0
    assert step.room == 10
    step.sent = 10
    assert step.room == 0
    step.micros = 10e6
    step.sent = 0
    assert step.room == 1


async def test_late_shadows_of_a_use_case_that_was_reset_open_no_log(
    make: Callable[..., Node], asked_desk: Any
) -> None:
    node = make()
    node.mirror(2)
    await node.settled()
    node.app.forget(NAME)
    home: Path = folder(asked_desk.settings.home, NAME)
    before = sorted(home.iterdir()) if home.is_dir() else []
    node.app.shadow.put_lines()
    assert (sorted(home.iterdir()) if home.is_dir() else []) == before
