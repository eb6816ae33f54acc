"""A challenger that dies, hangs, slows down or answers nonsense, at a real node: no user sees it.

What a shadow does to a node's callers, what the node's own guard does of it, and that a killed node
counts what it has answered (faults 7 and 74).
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.clock import wait_for
from include.predictions.window_counts import (
    CHALLENGER,
    CHAMPION,
    ERRORS,
    INVALID,
    PAIRED,
    REQUESTS,
    SHADOW,
    Counts,
    total,
)
from include.records.records import Window
from tests.builders.challenger import PATIENT
from tests.builders.releasing import Releasing
from tests.builders.serving import NAME, NOW, Desk, Node, until
from tests.builders.sick import Patient, rows_of, write_patient
from tests.builders.stopwatch import Stopwatch

PINS = "sha256:other"  # not this node's: the model runs as its Bento
ROWS = rows_of(400)


@dataclass
class Trial:
    """A node whose challenger, model 2, can be made sick."""

    desk: Desk
    node: Node
    releasing: Releasing
    patient: Patient
    asked: int = 0

    def begin(self, *, steps: int = 0) -> None:
        """Begin the release, and have the node hear its judge."""
        self.releasing.begin()
        for _ in range(steps):
            self.releasing.advance()
        self.beat()
        until(
            lambda: self.told.get("mode") is not None and self.told["step"] == steps,
            what="step at the node",
        )
        self.beat()
        until(lambda: "withheld" not in self.told, what="challenger at work")

    def beat(self) -> None:
        """Have the judge heard for longer than a busy machine takes for all of a test."""
        self.releasing.beat(seconds=600.0)

    @property
    def told(self) -> dict[str, Any]:
        """What the health page says of the release."""
        release: dict[str, Any] = self.node.health.get("release") or {"withheld": "none yet"}
        return release

    @property
    def challenger(self) -> psutil.Process:
        """The process of the challenger."""
        assert self.node.process is not None
        children = psutil.Process(self.node.process.pid).children()
        (found,) = [one for one in children if any("lane.py" in part for part in one.cmdline())]
        return found

    @property
    def shadows(self) -> dict[str, Any]:
        return dict(self.node.health.get("shadow") or {})

    def ask(self, count: int) -> list[dict[str, Any]]:
        """Ask by entities and rows; each is answered, or the test fails."""
        answers = []
        for _ in range(count):
            at = self.asked % len(ROWS)
            body: dict[str, Any] = {"features": ROWS[at]} if at % 2 else {"entity": at}
            answer = self.node.predict(**body)
            assert answer.status == 200, answer.body
            answers.append(answer.body)
            self.asked += 1
        return answers

    def ask_until(self, condition: Any, *, seconds: float) -> int:
        """Ask on until a condition holds; return how many were asked."""
        before = self.asked

        def asks() -> bool:
            self.ask(10)
            return bool(condition())

        assert wait_for(asks, seconds=seconds, every=0.02), f"not within {seconds:g} s"
        return self.asked - before

    def windows(self, boot: str | None = None) -> list[Window]:
        found = self.desk.records.releases.windows(NAME, self.releasing.release.id)
        return [one for one in found if boot in (None, one.boot)]

    def counts(self, arm: str, boot: str | None = None) -> Counts:
        rows = self.windows(boot)
        return total(Counts.read(one.counts) for one in rows if one.arm == arm)

    def latches(self) -> list[str]:
        guards = self.desk.records.releases.guards(NAME, self.releasing.release.id)
        return [one.reason for one in guards]


@pytest.fixture
def deadlines() -> str:
    """What gives the node's models other deadlines than a started node's."""
    return PATIENT


@pytest.fixture
def trial(tmp_path: Path, deadlines: str) -> Iterator[Trial]:
    desk = Desk(tmp_path)
    desk.candidate(1)
    desk.record_route(champion=1)
    desk.publish({number: (NOW, row) for number, row in enumerate(ROWS)})
    tag, patient = write_patient(tmp_path, 2)
    desk.candidate(2, pins=PINS, bento_tag=tag)
    with desk.node(deadlines) as node:
        node.serves(1)
        releasing = Releasing(desk, 2, 0, 2500)
        until(
            lambda: node.health.get("roles", {}).get("challenger", {}).get("state") == "ready",
            what="challenger",
        )
        yield Trial(desk, node, releasing, patient)


def test_shadows_are_pairs_in_the_records_and_lines_in_the_log(trial: Trial) -> None:
    trial.begin()
    answers = trial.ask(60)
    assert {answer["model_version"] for answer in answers} == {1}
    until(lambda: trial.shadows.get("answered") == 60, what="60 shadows")
    until(lambda: trial.counts(SHADOW).column(REQUESTS) == 60, what="windows")
    shadows, champions = trial.counts(SHADOW), trial.counts(CHAMPION)
    assert sum(row[PAIRED] for row in shadows.pairs) == champions.column(REQUESTS) == 60
    assert shadows.column(ERRORS) == shadows.dropped == 0
    lines = [
        json.loads(line)
        for path in (trial.desk.settings.home / "predictions" / NAME).iterdir()
        for line in path.read_bytes().splitlines()
    ]
    by_id: dict[str, set[str]] = {}
    for line in lines:
        by_id.setdefault(line["request_id"], set()).add(line["outcome"])
    assert list(by_id.values()) == [{"answered", "shadow"}] * 60
    # Shadows are counted once a second, and windows are written in a beat of their own.
    counted = f'evergreen_shadows_total{{result="answered",use_case="{NAME}"}} 60.0'
    until(lambda: counted in trial.node.get("/metrics").body, what="metric")


@pytest.mark.slow
@pytest.mark.parametrize("deadlines", [""])
@pytest.mark.parametrize(
    ("illness", "kind"),
    [
        ("nan", "invalid_score"),
        ("errors", "model_failed"),
        ("dies", "model_failed"),
        ("hangs", "model_failed"),
    ],
)
def test_a_sick_shadow_is_seen_by_no_caller_and_goes_home_within_half_a_minute(
    trial: Trial, illness: Any, kind: str
) -> None:
    trial.begin()
    trial.ask(30)
    if illness == "hangs":
        trial.challenger.suspend()
    else:
        trial.patient.sicken(illness)
    trial.ask_until(lambda: "guard" in trial.told.get("withheld", ""), seconds=30)
    assert {answer["model_version"] for answer in trial.ask(20)} == {1}
    until(lambda: len(trial.latches()) == 1, what="latch in the records")
    assert "answers failed" in trial.latches()[0]
    until(lambda: trial.counts(SHADOW).column(ERRORS) >= 20, what="windows")
    counts = trial.counts(SHADOW)
    assert set(counts.error_kinds) <= {kind, "model_late"}
    assert counts.column(INVALID) == (counts.column(ERRORS) if illness == "nan" else 0)
    assert trial.counts(CHAMPION).column(ERRORS) == 0
    latched = f'evergreen_guard_latched{{use_case="{NAME}"}} 1.0'
    until(lambda: latched in trial.node.get("/metrics").body, what="metric")


def test_a_slow_shadow_slows_no_caller_and_one_with_other_scores_is_a_pair(trial: Trial) -> None:
    trial.begin()
    trial.patient.sicken("slow", seconds=2.0)
    slowest = max(_seconds(trial) for _ in range(150))
    assert slowest < 1.8  # each shadow takes longer
    told = trial.shadows
    assert told["dropped"] + told["answered"] < 150  # the rest waits, in a bound
    trial.patient.sicken("shifted")
    trial.ask_until(lambda: trial.shadows["answered"] >= 100, seconds=120)
    until(lambda: trial.counts(SHADOW).column(REQUESTS) >= 100, what="windows")
    pairs = trial.counts(SHADOW).pairs
    assert sum(abs(row[1]) for row in pairs) > 10 * sum(row[PAIRED] for row in pairs)


def _seconds(trial: Trial) -> float:
    stopwatch = Stopwatch()
    trial.ask(1)
    return stopwatch.seconds


def test_a_guard_that_is_latched_stays_so_over_a_restart_until_the_release_ends(
    trial: Trial,
) -> None:
    trial.begin(steps=1)
    trial.ask_until(lambda: trial.asked >= 100, seconds=120)
    trial.patient.sicken("errors")
    trial.ask_until(lambda: "guard" in trial.told.get("withheld", ""), seconds=120)
    trial.patient.cure()
    trial.node.stop(signal.SIGKILL)
    trial.node.start()
    trial.node.serves(1)
    until(lambda: trial.told.get("share") == 0, what="release at the node")
    for _ in range(2):
        trial.beat()
        until(lambda: "guard" in trial.told.get("withheld", ""), what="guard")
    assert {answer["model_version"] for answer in trial.ask(60)} == {1}
    trial.releasing.abort()
    until(lambda: "release" not in trial.node.health, what="end of the release")


def test_a_killed_node_counts_what_it_has_answered(trial: Trial) -> None:
    trial.begin(steps=1)
    trial.ask(50)
    until(lambda: bool(trial.windows()), what="windows")
    killed = trial.windows()[0].boot
    trial.ask(150)
    trial.node.stop(signal.SIGKILL)
    trial.node.start()
    trial.node.serves(1)
    until(lambda: any(one.closed for one in trial.windows(killed)), what="recount")
    counted = total(Counts.read(one.counts) for one in trial.windows(killed) if one.arm != SHADOW)
    assert counted.column(REQUESTS) == 200
    # One of each step that this start has seen: it may have seen the step before, too.
    ends = Counter(one.step for one in trial.windows(killed) if Counts.read(one.counts).unclean)
    assert ends[1] == 1
    assert max(ends.values()) == 1
    assert {one.arm for one in trial.windows(killed)} >= {CHAMPION, CHALLENGER}


@pytest.mark.slow
def test_a_node_that_is_killed_as_it_begins_a_step_is_known_to_have_been(trial: Trial) -> None:
    trial.begin(steps=1)
    for boot in range(2):
        until(lambda: trial.told.get("step") == 1, what="step at the node", seconds=60)
        trial.ask(3)
        trial.node.stop(signal.SIGKILL)  # long before the first of the writes that are due
        trial.node.start()
        until(lambda: _unclean(trial) == boot + 1, what="end that is known", seconds=60)  # noqa: B023


def _unclean(trial: Trial) -> int:
    # Of the step alone: a node that was asked between the two has seen the one before, too.
    ended = [one for one in trial.windows() if one.closed and one.step == 1]
    return sum(Counts.read(one.counts).unclean for one in ended)


def test_a_node_that_ends_in_order_says_so(trial: Trial) -> None:
    trial.begin(steps=1)
    trial.ask(50)
    trial.node.stop()
    (boot,) = {one.boot for one in trial.windows()}
    # A node that was asked for its route between the two has seen the shadow step too.
    assert [one.step for one in trial.windows() if one.closed and one.step == 1] == [1]
    counted = total(Counts.read(one.counts) for one in trial.windows(boot) if one.arm != SHADOW)
    assert (counted.column(REQUESTS), counted.unclean) == (50, 0)
    assert not list((trial.desk.settings.home / "serving").glob("windows-*"))
