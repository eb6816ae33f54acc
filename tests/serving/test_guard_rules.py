"""A clear fail goes home within half a minute; equal models never, whatever their entities do."""

from __future__ import annotations

import random
import time
from math import comb

import pytest

from include.predictions.window_counts import CHALLENGER, CHAMPION, ENTITY_BITS, SHADOW
from include.serving.guard_rules import LEVEL, History, Sums, burn_rate, tail
from include.serving.tally import Recent

ENTITIES = 2000
USUAL = 0.999  # the availability of a use case that says nothing


class Traffic:
    """Requests of many entities, each of which stays in its arm."""

    def __init__(self, share: float, seed: int = 1, *, arm: str = CHALLENGER) -> None:
        self.draw, self.share, self.arm = random.Random(seed), share, arm
        self.placed = [self.draw.random() < share for _ in range(ENTITIES)]
        self.history, self.now = History(USUAL), 0.0

    def second(
        self, requests: int, *, bad: float = 0.0, others_bad: float = 0.0, **of: float
    ) -> str:
        """Let a second pass; return what is judged then.

        `bad` is the challenger's share of failed answers; of slow ones it is `slow`.
        """
        arms = {self.arm: Recent(), CHAMPION: Recent()}
        for _ in range(requests):
            entity = self.draw.randrange(ENTITIES)
            self.ask(arms[CHAMPION], entity, others_bad, of.get("others_slow", 0.0))
            if self.arm == SHADOW or self.placed[entity]:
                self.ask(arms[self.arm], entity, bad, of.get("slow", 0.0))
        for arm, recent in arms.items():
            self.history.add(arm, recent, self.now)
        self.now += 1.0
        return self.history.judge(self.now)

    def ask(self, recent: Recent, entity: int, bad: float, slow: float) -> None:
        count(recent, entity, failed=self.draw.random() < bad, late=self.draw.random() < slow)

    def until(self, seconds: int, requests: int, **shares: float) -> tuple[int, str]:
        """Let seconds pass until something is judged; return when, and what."""
        for second in range(seconds):
            if why := self.second(requests, **shares):
                return second, why
        return seconds, ""


def count(recent: Recent, entity: int, *, failed: bool, late: bool = False) -> None:
    bit = entity % ENTITY_BITS
    recent.requests += 1
    recent.timed += 1
    recent.entities.add(bit)
    if failed:
        recent.errors += 1
        recent.failed.add(bit)
    if late:
        recent.slow += 1
        recent.late.add(bit)


@pytest.mark.parametrize(("share", "arm"), [(0.05, CHALLENGER), (0.25, CHALLENGER), (1.0, SHADOW)])
@pytest.mark.parametrize("bad", [1.0, 0.7])
def test_a_dead_model_goes_home_within_half_a_minute(share: float, arm: str, bad: float) -> None:
    traffic = Traffic(share, arm=arm)
    assert traffic.until(60, 20)[1] == ""
    seconds, why = traffic.until(60, 20, bad=bad)
    assert seconds <= 30
    assert "answers failed within" in why


def test_a_model_that_became_slow_goes_home_within_a_minute() -> None:
    traffic = Traffic(0.25)
    assert traffic.until(60, 20)[1] == ""
    seconds, why = traffic.until(60, 20, slow=0.9)
    assert seconds <= 60
    assert "slow" in why


def test_errors_that_burn_the_objective_go_home_and_common_ones_do_not() -> None:
    seconds, why = Traffic(0.25).until(600, 50, bad=0.03)
    assert "burn rate" in why
    assert 60 < seconds < 500
    assert Traffic(0.25).until(600, 50, bad=0.03, others_bad=0.03)[1] == ""
    assert Traffic(0.25).until(120, 50, bad=1.0, others_bad=1.0)[1] == ""
    assert Traffic(0.25).until(120, 50, slow=1.0, others_slow=1.0)[1] == ""


def test_few_bad_answers_are_no_clear_fail() -> None:
    history, others = History(USUAL), Recent()
    for entity in range(100, 400):
        count(others, entity, failed=False)
    history.add(CHAMPION, others, 0.0)
    for entity in range(9):
        recent = Recent()
        count(recent, entity, failed=True)
        history.add(CHALLENGER, recent, entity * 3.0)
    assert history.judge(25.0) == ""
    more = Recent()
    count(more, 9, failed=True)
    history.add(CHALLENGER, more, 26.0)
    assert "10 of 10 answers failed" in history.judge(27.0)


@pytest.mark.parametrize(("share", "arm"), [(0.05, CHALLENGER), (0.25, CHALLENGER), (1.0, SHADOW)])
@pytest.mark.parametrize(("before", "outage"), [(0, 15), (3, 15), (31, 4)])
def test_a_process_that_crashed_once_takes_nobody_home(
    share: float, arm: str, before: int, outage: int
) -> None:
    """In the first seconds of a step too, when nothing else was answered yet."""
    traffic = Traffic(share, arm=arm)
    for seconds, shares in ((before, {}), (outage, {"bad": 1.0}), (130, {"bad": 0.001})):
        assert traffic.until(seconds, 100, **shares)[1] == ""


def test_useless_scores_are_no_crash_and_go_home_within_seconds() -> None:
    scores, others = Recent(), Recent()
    for entity in range(20):
        count(scores, entity, failed=True)
        count(others, 100 + entity, failed=False)
    for invalid in (9, 20):
        scores.invalid, history = invalid, History(USUAL)
        history.add(CHALLENGER, scores, 0.0)
        history.add(CHAMPION, others, 0.0)
        assert bool(history.judge(1.0)) is (invalid == 20)


def test_a_process_that_crashes_again_and_again_goes_home() -> None:
    traffic = Traffic(0.25)
    told = ""
    for _ in range(20):
        told = told or traffic.until(4, 50, bad=1.0)[1] or traffic.until(8, 50)[1]
    assert "burn rate" in told


def test_one_entity_that_no_model_can_answer_takes_nobody_home() -> None:
    history, one = History(USUAL), Recent()
    for _ in range(1000):
        count(one, 7, failed=True)
    others = Recent()
    for entity in range(100, 400):
        count(others, entity, failed=False)
    for second in range(0, 30, 3):
        history.add(CHALLENGER, one, float(second))
        history.add(CHAMPION, others, float(second))
    assert history.judge(30.0) == ""


def test_what_is_long_ago_counts_no_more() -> None:
    traffic = Traffic(0.25)
    bad = Recent()
    for entity in range(9):
        count(bad, entity, failed=True)
    traffic.history.add(CHALLENGER, bad, traffic.now)
    traffic.until(700, 5)
    assert traffic.history.within(CHALLENGER, 600.0, traffic.now).errors == 0
    assert traffic.history.within(CHALLENGER, 30.0, traffic.now).requests < 80


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.25])
def test_equal_models_stay_though_entities_are_heavy_and_fail_alike(share: float) -> None:
    """150 releases of an hour: requests by entity are heavy-tailed, some entities always fail."""
    home = 0
    for seed in range(150):
        draw = random.Random(seed)
        weights = [draw.paretovariate(1.1) for _ in range(300)]
        fails = [draw.random() < 0.03 for _ in weights]
        placed = [draw.random() < share for _ in weights]
        history, told = History(USUAL), ""
        for bucket in range(360):
            arms = {CHALLENGER: Recent(), CHAMPION: Recent()}
            outage = 0.5 if draw.random() < 0.01 else 0.0  # of the machine, for both
            for entity in draw.choices(range(300), weights, k=12):
                arm = CHALLENGER if placed[entity] else CHAMPION
                count(arms[arm], entity, failed=fails[entity] or draw.random() < outage)
            for name, recent in arms.items():
                history.add(name, recent, bucket * 10.0)
            told = told or history.judge(bucket * 10.0)
        home += bool(told)
    assert home == 0


def test_the_tail_is_that_of_the_binomial() -> None:
    for hits, draws, share in ((5, 5, 0.05), (12, 20, 0.4), (60, 100, 0.5)):
        terms = (
            comb(draws, n) * share**n * (1 - share) ** (draws - n) for n in range(hits, draws + 1)
        )
        assert tail(hits, draws, share) == pytest.approx(sum(terms), rel=1e-6)
    assert tail(5, 5, 0.05) < LEVEL < tail(4, 4, 0.05)
    assert tail(10, 10, 0.25) < LEVEL < tail(9, 9, 0.25)
    assert tail(20, 20, 0.5) < LEVEL < tail(19, 19, 0.5)
    assert tail(3, 10, 0.5) == tail(2, 3, 1.0) == tail(0, 0, 0.5) == 1.0
    assert tail(3000, 6000, 0.05) < LEVEL


def test_a_burn_rate_is_the_share_of_errors_in_what_is_allowed() -> None:
    assert burn_rate(Sums(1000, 2), USUAL) == pytest.approx(2.0)
    assert burn_rate(Sums(1000, 2), 0.99) == pytest.approx(0.2)
    assert burn_rate(Sums(), USUAL) == 0.0


@pytest.mark.parametrize(("promised", "goes_home"), [(0.999, True), (0.97, False), (0.9999, True)])
def test_what_burns_is_told_by_the_availability_that_the_plan_promises(
    promised: float, goes_home: bool
) -> None:
    traffic = Traffic(0.25)
    traffic.history = History(promised)
    assert ("burn rate" in traffic.until(600, 50, bad=0.03)[1]) is goes_home


def test_a_look_at_ten_busy_minutes_takes_a_moment() -> None:
    """Of all bits in each bucket, with one entity of the arm that fails at each request."""
    history, one = History(USUAL), Recent()
    for _ in range(1000):
        count(one, 7, failed=True)
    everybody = Recent(ENTITY_BITS, 0, 0, 0, set(range(ENTITY_BITS)))
    for bucket in range(120):
        for arm in (CHALLENGER, CHAMPION):
            history.add(arm, everybody, bucket * 5.0)
        history.add(CHALLENGER, one, bucket * 5.0)
    costs = []
    for _ in range(5):
        began = time.thread_time()
        assert history.judge(599.0) == ""
        costs.append(time.thread_time() - began)
    assert min(costs) < 0.003
