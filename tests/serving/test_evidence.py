"""A request costs a tuple; the tuples become windows that say who was asked, and who answered."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import msgspec
import pytest

from include.deployment.description import Description
from include.predictions.window_counts import (
    CHALLENGER,
    CHAMPION,
    DECISIONS_DIFFER,
    ERRORS,
    NOBODY,
    PAIRED,
    REQUESTS,
    SHADOW,
    TIMED,
    entity_count,
    place_of,
)
from include.serving import evidence as evidence_module
from include.serving.answer_log import Asked
from include.serving.evidence import SLICE, Evidence, WindowKey
from include.serving.snapshot import Served, ServedRelease
from include.serving.tally import ROW_LACKS_FEATURE
from tests.builders.application import Client
from tests.builders.serving import NAME

RELEASE = ServedRelease("a" * 12, 1, "canary", 500, bytes(range(16)))
MINUTE = 29_000_000


@pytest.fixture
def served(client: Client) -> Served:
    """A snapshot with a release under way."""
    return Served(client.use_case, release=RELEASE)


def asked(number: int = 1, *, minute: int = MINUTE, batch: bool = False) -> Asked:
    request = Asked(f"req-{number:x}", None, batch=batch)
    request.at = minute * 60_000_000 + number
    return request


def note(evidence: Evidence, served: Served, request: Asked, **changes: object) -> None:
    arguments: dict[str, object] = {
        "assigned": CHAMPION,
        "answering": CHAMPION,
        "entity": 7,
        "score": 0.25,
        "model_us": 40,
        "above": False,
        **changes,
    }
    evidence.note(served, request, **arguments)  # type: ignore[arg-type]


def key(**changes: object) -> WindowKey:
    return WindowKey(NAME, RELEASE.id, 1, CHAMPION, CHAMPION, MINUTE)._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture
def evidence() -> Evidence:
    return Evidence(lambda: lambda name: f"h:{name}")


def test_requests_are_counted_by_step_arms_and_the_minute_in_which_they_came(
    evidence: Evidence, served: Served
) -> None:
    note(evidence, served, asked())
    note(evidence, served, asked(2, minute=MINUTE + 1))
    note(evidence, served, asked(3), assigned=CHALLENGER, answering=CHALLENGER)
    note(evidence, served, asked(4), assigned=CHALLENGER, error="deadline")
    note(evidence, served, asked(5), answering=NOBODY, score=None, error="model_failed")
    note(evidence, replace(served, release=replace(RELEASE, step=2)), asked(6))
    note(evidence, replace(served, release=None), asked(7))
    note(evidence, replace(served, release=replace(RELEASE, state="trying", step=0)), asked(8))
    assert not evidence.windows
    evidence.fold()
    assert set(evidence.windows) == {
        key(),
        key(minute=MINUTE + 1),
        key(arm=CHALLENGER, answering=CHALLENGER),
        key(arm=CHALLENGER),
        key(answering=NOBODY),
        key(step=2),
    }
    fell_back = evidence.windows[key(arm=CHALLENGER)].tally
    assert (fell_back.fallbacks, fell_back.counts().column(ERRORS)) == (1, 1)
    assert evidence.windows[key()].tally.fallbacks == 0


def test_a_row_that_lacks_a_feature_is_a_fallback_and_no_error(
    evidence: Evidence, served: Served
) -> None:
    changes = {"error": ROW_LACKS_FEATURE, "lacks": "income"}
    note(evidence, served, asked(), assigned=CHALLENGER, **changes)
    evidence.fold()
    counts = evidence.windows[key(arm=CHALLENGER)].tally.counts()
    assert (counts.column(ERRORS), counts.fallbacks, counts.lacks) == (0, 1, {"income": 1})
    assert entity_count(counts) == 0, "that the champion answered says nothing of the challenger"


def test_rows_of_batches_are_in_no_bin_of_times(evidence: Evidence, served: Served) -> None:
    note(evidence, served, asked(batch=True))
    evidence.fold()
    counts = evidence.windows[key()].tally.counts()
    assert (counts.column(REQUESTS), counts.column(TIMED), sum(counts.time_bins)) == (1, 0, 0)


def test_entities_are_told_apart_and_without_one_each_request_is_its_own(
    evidence: Evidence, served: Served
) -> None:
    for number in range(300):
        note(evidence, served, asked(number), entity=number % 10)
    evidence.fold()
    known = evidence.windows[key()].tally.counts()
    assert entity_count(known) == pytest.approx(10, rel=0.05)
    for number in range(300):
        note(evidence, served, asked(number, minute=MINUTE + 1), entity=None)
    evidence.fold()
    unknown = evidence.windows[key(minute=MINUTE + 1)].tally.counts()
    assert entity_count(unknown) == pytest.approx(300, rel=0.06)


def test_an_entity_is_counted_under_the_name_that_its_lines_have(
    evidence: Evidence, served: Served
) -> None:
    use_case = hashed(served.use_case)
    note(evidence, replace(served, use_case=use_case), asked(), entity=7)
    evidence.fold()
    tally = evidence.windows[key()].tally
    cluster, bit = place_of(RELEASE.key, "h:7")
    assert tally.entities[bit] == 1
    assert tally.rows[cluster][REQUESTS] == 1


def hashed(use_case: Description) -> Description:
    log = msgspec.structs.replace(use_case.log, hashes_entity=True)
    return msgspec.structs.replace(use_case, log=log)


def test_shadows_are_pairs_with_the_answer_and_drops_are_counted(
    evidence: Evidence, served: Served
) -> None:
    for score, error in ((0.75, None), (None, "deadline")):
        evidence.shadow(
            served,
            asked(),
            7,
            score=score,
            model_us=9,
            above=score is not None,
            error=error,
            answered=(0.25, False),
        )
    evidence.drop(served, asked().at, 3)
    evidence.drop(replace(served, release=None), asked().at)
    evidence.fold()
    counts = evidence.windows[key(arm=SHADOW, answering=CHALLENGER)].tally.counts()
    assert (counts.column(REQUESTS), counts.column(ERRORS)) == (2, 1)
    assert (counts.dropped, counts.fallbacks) == (3, 0)
    pairs = [sum(row[column] for row in counts.pairs) for column in (PAIRED, DECISIONS_DIFFER)]
    assert pairs == [1, 1]


def test_a_pair_of_the_challengers_request_counts_no_request_of_the_champion(
    evidence: Evidence, served: Served
) -> None:
    told: list[tuple[str, int]] = []
    evidence.observers.append(lambda of, arm, recent: told.append((arm, recent.requests)))
    for score in (0.25, None):
        evidence.shadow(
            served,
            asked(),
            7,
            score=score,
            model_us=9,
            above=False,
            error=None if score else "model_failed",
            answered=(0.75, True),
            by=CHAMPION,
        )
    evidence.drop(served, asked().at, 2, by=CHAMPION)
    evidence.fold()
    counts = evidence.windows[key(arm=SHADOW, answering=CHAMPION)].tally.counts()
    sums = [sum(column) for column in zip(*counts.pairs, strict=True)]
    assert sums == [1, 500, 250_000, 1], "the challenger's less the champion's, in thousandths"
    assert (counts.column(REQUESTS), counts.error_kinds, counts.dropped) == (0, {}, 2)
    assert entity_count(counts) == 0
    assert told == [(SHADOW, 0)], "the guard has nothing of it to blame anybody for"


def test_observers_are_told_what_is_new_alone(evidence: Evidence, served: Served) -> None:
    told = []
    evidence.observers.append(
        lambda served, arm, recent: told.append((arm, recent.requests, recent.errors))
    )
    for number in range(SLICE + 2):
        note(evidence, served, asked(number))
    evidence.fold(SLICE)
    evidence.fold(SLICE)
    assert told == [(CHAMPION, SLICE, 0), (CHAMPION, 2, 0)]


def test_what_is_folded_together_is_what_is_folded_one_by_one(served: Served) -> None:
    """Windows change within one go: by minute, arm, step, and a clock that was set back."""
    later = replace(served, release=replace(RELEASE, step=2))
    trying = replace(served, release=replace(RELEASE, state="trying"))
    folded = []
    for most in (None, 1):
        evidence = Evidence(lambda: str)
        evidence.floor = MINUTE - 1
        for number in range(240):
            snapshot = (served, later, trying, served)[number // 5 % 4]
            changes: dict[str, object] = {
                "assigned": CHALLENGER if number % 7 == 0 else CHAMPION,
                "answering": CHALLENGER if number % 14 == 0 else CHAMPION,
                "entity": None if number % 11 == 0 else number % 13,
                "score": (0.0, 0.4995, 1.0, 0.97, None)[number % 5],
                "model_us": number * 900,
                "above": number % 3 == 0,
                "error": "late" if number % 7 == 0 else None,
            }
            request = asked(number, minute=MINUTE + number % 4 - 2, batch=number % 17 == 0)
            note(evidence, snapshot, request, **changes)
            if number % 6 == 0:
                evidence.shadow(
                    snapshot,
                    request,
                    number % 13,
                    score=0.25,
                    model_us=9,
                    above=False,
                    error=None,
                    answered=(0.5, True),
                )
        if most is None:
            evidence.fold()
        for _ in range(400 if most else 0):
            evidence.fold(most)
        folded.append({at: one.tally.counts().plain() for at, one in evidence.windows.items()})
    assert folded[0] == folded[1]
    assert {at.minute for at in folded[0]} == {MINUTE - 1, MINUTE, MINUTE + 1}
    assert {at.step for at in folded[0]} == {1, 2}
    assert {at.arm for at in folded[0]} == {CHAMPION, CHALLENGER, SHADOW}


def test_notes_that_nobody_folds_do_not_fill_the_memory(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_module, "MAX_NOTES", 10)
    lost: list[int] = []
    evidence = Evidence(lambda: str, lost.append)
    for number in range(25):
        note(evidence, served, asked(number))
    evidence.fold()
    assert lost == [15]
    assert evidence.windows[key()].tally.counts().column(REQUESTS) == 10


@pytest.mark.anyio
async def test_a_turn_folds_all_and_lets_others_run_in_between(
    evidence: Evidence, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence_module, "FOLD_SECONDS", 0.0)
    for number in range(3 * SLICE):
        note(evidence, served, asked(number))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await evidence.turn()
    other.cancel()
    assert evidence.windows[key()].tally.counts().column(REQUESTS) == 3 * SLICE
    assert turns >= 3


def test_to_note_a_request_costs_at_most_33_turns_of_a_loop(
    evidence: Evidence, served: Served
) -> None:
    requests = [asked(number) for number in range(20_000)]
    costs, floors = [], []
    for _ in range(5):
        began, total = time.thread_time(), 0
        for number, _request in enumerate(requests):
            total += number
        floors.append((time.thread_time() - began) / len(requests))
        began = time.thread_time()  # of this thread alone: others use the machine
        for number, request in enumerate(requests):
            evidence.note(
                served,
                request,
                assigned=CHAMPION,
                answering=CHAMPION,
                entity=number % 1000,
                score=0.25,
                model_us=40,
                above=False,
            )
        costs.append((time.thread_time() - began) / len(requests))
        evidence.fold()
    # 2 us where a turn of an empty loop takes .06: a slow machine is slow at both.
    assert min(costs) < 33 * min(floors)
