"""When a node sends a release's traffic home by itself: for a clear fail only, and how clear.

The judge decides on all nodes' evidence by tests that share one error rate. The guard is there for
what cannot wait for it, such as NaN or a dead process; what it takes home by mistake counts in the
same rate, so its bounds are wide. Each of these must hold:

- Much is wrong: half of at least 10 answers (of 20, for slow ones) within half a minute, two or ten
  minutes, while at most a tenth of the other arm's is; or the burn rate, of the availability that
  the release's plan promises, is above 2 in the last two and ten minutes with at least 20 bad
  answers, and the other arm's is not.
- It is the arm's, by the coin of the assignment. Were both models alike, each entity with a bad
  answer would be in the arm by its share of the entities alone. The chance that so many of them are
  is below one in a million: 5 entities of 5 at a share of 5 %, 10 at 25 %, 20 mirrored ones. One
  entity whose rows no model can answer, however often it asks, is one coin.

A look takes home an equal model with a chance of 1e-6. Looks at the same minutes say the same: a
release of three days has some 430 windows of ten minutes, two kinds of badness and two arms that
are looked at, so less than 0.002 of the 0.05 that `release.false_rollback` allows is the guard's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, lgamma, log, log1p

from include.predictions.window_counts import CHALLENGER, CHAMPION, ENTITY_BITS, SHADOW
from include.serving.tally import Recent

BUCKET_SECONDS = 5.0
# So long a crashed process may take until it answers again: its model is verified and tried anew.
RESTART_SECONDS = 15.0
RESTART_BUCKETS = int(RESTART_SECONDS / BUCKET_SECONDS) + 1  # that it touches at most
WINDOWS = (30.0, 120.0, 600.0)  # seconds
BROKEN_SHARE, SOUND_SHARE = 0.5, 0.1
MIN_ERRORS, MIN_SLOW = 10, 20
BURN_RATE, MIN_BURNT = 2.0, 20
LEVEL = 1e-6
# Judged arms; each is compared with the champion's.
ARMS = (CHALLENGER, SHADOW)


@dataclass(slots=True)
class Sums:
    """What an arm did in some time; the entities are bits of a number, which add at once."""

    requests: int = 0
    errors: int = 0
    timed: int = 0
    slow: int = 0
    entities: int = 0
    failed: int = 0
    late: int = 0
    invalid: int = 0

    @classmethod
    def of(cls, recent: Recent) -> Sums:
        """Return what was counted in one go."""
        return cls(
            recent.requests,
            recent.errors,
            recent.timed,
            recent.slow,
            _bits(recent.entities),
            _bits(recent.failed),
            _bits(recent.late),
            recent.invalid,
        )

    def add(self, other: Sums) -> None:
        """Add what was done in another time."""
        self.requests += other.requests
        self.errors += other.errors
        self.timed += other.timed
        self.slow += other.slow
        self.entities |= other.entities
        self.failed |= other.failed
        self.late |= other.late
        self.invalid += other.invalid


class History:
    """What the arms of one step of a release did in the last ten minutes.

    `availability` is the share of good answers that its plan promises.
    """

    def __init__(self, availability: float) -> None:
        self._availability = availability
        self._buckets: deque[tuple[float, dict[str, Sums]]] = deque()

    def add(self, arm: str, recent: Recent, now: float) -> None:
        """Add what was counted of an arm just now; `now` is in seconds that only rise."""
        if not self._buckets or now - self._buckets[-1][0] >= BUCKET_SECONDS:
            self._buckets.append((now, {}))
        self._buckets[-1][1].setdefault(arm, Sums()).add(Sums.of(recent))
        while self._buckets[0][0] < now - WINDOWS[-1] - BUCKET_SECONDS:
            self._buckets.popleft()

    def within(self, arm: str, seconds: float, now: float) -> Sums:
        """Return what an arm did in the last seconds, to a bucket more or less."""
        total = Sums()
        for sums in self._of(arm, seconds, now):
            total.add(sums)
        return total

    def _of(self, arm: str, seconds: float, now: float) -> list[Sums]:
        """Return what an arm did in the last seconds, by bucket."""
        return [
            arms.get(arm, Sums())
            for began, arms in self._buckets
            if began > now - seconds - BUCKET_SECONDS
        ]

    def judge(self, now: float) -> str:
        """Return why the challenger's traffic is to go home, or ""."""
        for arm in ARMS:
            whole = self.within(arm, WINDOWS[-1], now)
            if whole.errors < MIN_ERRORS and whole.slow < MIN_SLOW:
                continue
            for seconds in WINDOWS:
                ours, theirs = (self.within(one, seconds, now) for one in (arm, CHAMPION))
                pieces = self._of(arm, seconds, now)
                why = _why_broken(ours, theirs, pieces) or _why_slow(ours, theirs, pieces)
                if why:
                    return f"{why} within {seconds:g} s"
            if why := self._why_burning(arm, now):
                return why
        return ""

    def _why_burning(self, arm: str, now: float) -> str:
        _, short, long = (self.within(arm, seconds, now) for seconds in WINDOWS)
        others, promised = self.within(CHAMPION, WINDOWS[-1], now), self._availability
        if (
            long.errors >= MIN_BURNT
            and burn_rate(long, promised) > BURN_RATE
            and burn_rate(short, promised) > BURN_RATE
            and burn_rate(others, promised) <= BURN_RATE
            and self._burns_without_restart(arm, now)
            and _is_the_arms(long, others, long.failed, others.failed)
        ):
            return (
                f"{long.errors} of {long.requests} answers failed within {WINDOWS[-1]:g} s, a burn "
                f"rate of {burn_rate(long, promised):.1f}"
            )
        return ""

    def _burns_without_restart(self, arm: str, now: float) -> bool:
        """Tell whether an arm burns also where the worst that one restart touches is left out."""
        pieces = self._of(arm, WINDOWS[-1], now)
        total = Sums(sum(one.requests for one in pieces), sum(one.errors for one in pieces))
        ends = range(max(1, len(pieces) - RESTART_BUCKETS + 1))
        worst = max(sum(one.errors for one in pieces[at : at + RESTART_BUCKETS]) for at in ends)
        rest = Sums(total.requests, total.errors - worst)
        return rest.errors >= MIN_BURNT and burn_rate(rest, self._availability) > BURN_RATE


def burn_rate(recent: Sums, availability: float) -> float:
    """Return how many times faster than allowed the errors use up the objective."""
    return recent.errors / recent.requests / (1 - availability) if recent.requests else 0.0


def _why_broken(ours: Sums, theirs: Sums, pieces: Sequence[Sums]) -> str:
    is_much = _is_much(ours.errors, ours.requests, theirs.errors, theirs.requests, MIN_ERRORS)
    no_crash = ours.invalid >= max(MIN_ERRORS, BROKEN_SHARE * ours.requests)
    lasts = no_crash or _lasts((one.errors, one.requests) for one in pieces)
    if is_much and lasts and _is_the_arms(ours, theirs, ours.failed, theirs.failed):
        return f"{ours.errors} of {ours.requests} answers failed"
    return ""


def _why_slow(ours: Sums, theirs: Sums, pieces: Sequence[Sums]) -> str:
    is_much = _is_much(ours.slow, ours.timed, theirs.slow, theirs.timed, MIN_SLOW)
    lasts = _lasts((one.slow, one.timed) for one in pieces)
    if is_much and lasts and _is_the_arms(ours, theirs, ours.late, theirs.late):
        return f"{ours.slow} of {ours.timed} answers were slow"
    return ""


def _is_much(bad: int, of: int, others_bad: int, of_others: int, least: int) -> bool:
    return (
        bad >= least and bad >= BROKEN_SHARE * of and others_bad <= SOUND_SHARE * max(1, of_others)
    )


def _lasts(pieces: Iterable[tuple[int, int]]) -> bool:
    """Tell whether more pieces of time are bad, by themselves, than one restart touches."""
    bad = sum(wrong > 0 and wrong >= BROKEN_SHARE * of for wrong, of in pieces)
    return bad > RESTART_BUCKETS


def _is_the_arms(ours: Sums, theirs: Sums, bad: int, others_bad: int) -> bool:
    """Tell whether so many entities with bad answers are not in the arm by chance."""
    share = ours.entities.bit_count() / (ours.entities.bit_count() + theirs.entities.bit_count())
    hits = bad.bit_count()
    return tail(hits, hits + others_bad.bit_count(), share) < LEVEL


def _bits(places: Iterable[int]) -> int:
    flags = bytearray(ENTITY_BITS // 8)
    for place in places:
        flags[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(flags, "little")


def tail(hits: int, draws: int, share: float) -> float:
    """Return the chance of at least so many hits among draws that each hit with a share.

    Above the mean alone; below it the answer is 1.
    """
    if hits <= draws * share or not 0 < share < 1:
        return 1.0
    first = lgamma(draws + 1) - lgamma(hits + 1) - lgamma(draws - hits + 1)
    term = exp(first + hits * log(share) + (draws - hits) * log1p(-share))
    total = 0.0
    for count in range(hits, draws + 1):
        total += term
        term *= (draws - count) / (count + 1) * share / (1 - share)
        if term < total * 1e-9:
            break
    return total
