"""Always-valid tests of a challenger against a champion, on sums over clusters of entities.

Looked at as often as one likes, a test of an equal model fails with at most its level. It has two
parts: a normal deviate of how much worse than the margin the challenger is, whose spread is taken
from clusters (requests of one entity are alike, few entities send most of them, and what fails or
is slow comes in bursts); and a boundary for such deviates that holds at all times at once. Every
function takes one release, or many along the leading axes; the last axis are the clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri, stdtr, xlogy

Floats = NDArray[np.float64]

POWER = 0.9  # with which a worsening counts as one that would have been seen
FEWEST_CLUSTERS = 8  # with requests; between fewer there is no spread to speak of
_LEAST_DF = 2.0  # of a mean; below that one entity is all there is


class Deviate(NamedTuple):
    """How much worse than tolerated, in standard errors; `error` is the standard error."""

    z: Floats
    error: Floats


class Tally(NamedTuple):
    """Bad answers of those asked, by cluster of entities and, as a pair, by stretch of time."""

    bad: Floats
    asked: Floats
    by_time: tuple[Floats, Floats] | None = None


class Ratio(NamedTuple):
    """A ratio of sums, with the standard error and degrees of freedom that its clusters give."""

    value: Floats
    error: Floats
    df: Floats


def log_evidence(deviate: Deviate, sought: float) -> Floats:
    """Return the log of the evidence against *not worse than the margin*.

    The likelihood ratio of a normal deviate, mixed over worsenings of the size that is `sought`
    with a half-normal weight: Robbins (1970), Statistical methods related to the law of the
    iterated logarithm; as one-sided normal mixture in Howard, Ramdas, McAuliffe, Sekhon (2021),
    Time-uniform, nonparametric, nonasymptotic confidence sequences. For an equal model it exceeds
    1 / level at any time at all with at most that level (Ville). That sums which are only nearly
    normal may be used so: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (2024), Time-uniform central
    limit theory and asymptotic confidence sequences.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        information = np.square(sought / deviate.error)
        part = np.where(np.isfinite(information), information / (1 + information), 1.0)
        log = (
            np.log(2)
            - 0.5 * np.log1p(np.where(np.isfinite(information), information, 0.0))
            + 0.5 * np.square(deviate.z) * part
            + log_ndtr(deviate.z * np.sqrt(part))
        )
    # Evidence is only ever for worse: where nothing was seen there is none.
    return np.asarray(np.where(np.isfinite(log), log, 0.0), float)


def boundary(error: Floats | float, sought: float, level: float) -> Floats:
    """Return the deviate at which the evidence reaches 1 / level, for a standard error."""
    information = np.square(sought / np.maximum(np.asarray(error, float), 1e-12))
    needed = np.log(1 / level) - np.log(2) + 0.5 * np.log1p(information)
    return np.asarray(np.sqrt(2 * (1 + information) / information * needed), float)


def share_above(mine: Tally, before: Tally, margin: float) -> Deviate:
    """Return how far a share is above the champion's and the margin.

    The signed root of twice the log likelihood ratio of two binomial shares, whose difference is
    held at the margin by Miettinen, Nurminen (1985), Comparative analysis of two rates. Counts
    stand for as many independent ones as their clusters say: Rao, Scott (1992), A simple method
    for the analysis of clustered binary data. Unlike a difference over its standard error this
    sees two per cent of errors where there was one in a thousand, on some hundred requests.
    """
    effect = _effect(mine, before)
    return _share_above(_effective(mine, effect), _effective(before, effect), margin)


def share_above_limit(mine: Tally, limit: float) -> Deviate:
    """Return how far a share is above an absolute limit; as `share_above`, with one share."""
    return _share_above_limit(_effective(mine, _effect(mine, None)), limit)


def moved(total: Floats, count: Floats, total_before: Floats, count_before: Floats) -> Ratio:
    """Return the difference of two ratios of sums, the challenger's less the champion's.

    Its error is that of the jackknife that leaves one cluster out of both: entities that both
    models answered (mirrored requests) then cancel, others add. MacKinnon, Nielsen, Webb (2023),
    Fast and reliable jackknife and bootstrap methods for cluster-robust inference.
    """
    mine, before = total.sum(-1), total_before.sum(-1)
    asked, asked_before = count.sum(-1), count_before.sum(-1)
    value = _over(mine, asked) - _over(mine * 0 + before, asked_before)
    left_out = _over(mine[..., None] - total, asked[..., None] - count) - _over(
        before[..., None] - total_before, asked_before[..., None] - count_before
    )
    return Ratio(value, _jackknife(left_out), np.minimum(_df(count), _df(count_before)))


def ratio(total: Floats, count: Floats) -> Ratio:
    """Return a ratio of sums, such as a mean difference of pairs; its error as in `moved`."""
    sums, counts = total.sum(-1), count.sum(-1)
    left_out = _over(sums[..., None] - total, counts[..., None] - count)
    return Ratio(_over(sums, counts), _jackknife(left_out), _df(count))


def spread_moved(mine: tuple[Floats, ...], before: tuple[Floats, ...]) -> Ratio:
    """Return the log of the ratio of two standard deviations, by count, sum and sum of squares."""
    total, total_before = (tuple(part.sum(-1) for part in arm) for arm in (mine, before))
    left = _log_spread(*(one[..., None] - part for one, part in zip(total, mine, strict=True)))
    left_before = _log_spread(
        *(one[..., None] - part for one, part in zip(total_before, before, strict=True))
    )
    value = _log_spread(*total) - _log_spread(*total_before)
    return Ratio(value, _jackknife(left - left_before), np.minimum(_df(mine[0]), _df(before[0])))


def beyond(found: Ratio, margin: Floats | float) -> Deviate:
    """Return how far something has moved beyond a margin, up or down, whichever is more."""
    distance = np.abs(found.value) - margin
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.where(found.error > 0, distance / found.error, np.sign(distance) * np.inf)
    known = np.isfinite(found.value) & (found.df >= _LEAST_DF)
    return _deviate(np.where(known, root, 0.0), found.error, found.df)


def seen_share(
    mine: Tally, before: Tally | None, margin: float, *, level: float, sought: float
) -> float:
    """Return the least share of the challenger that would have failed it, with `POWER`.

    For one release: what a step with these requests and this champion could have seen. Without a
    champion the margin is the limit.
    """
    effect = _effect(mine, before)
    counted = _effective(mine, effect)
    if not counted.asked > 0:
        return 1.0
    shares = np.geomspace(1e-5, 1, 400)
    guess = _Effective(shares * counted.asked, counted.asked, counted.clusters)
    deviate = (
        _share_above_limit(guess, margin)
        if before is None
        else _share_above(guess, _effective(before, effect), margin)
    )
    seen = deviate.z >= boundary(deviate.error, sought, level) + ndtri(POWER)
    return float(shares[seen.argmax()]) if seen.any() else 1.0


def seen_move(found: Ratio, margin: float, *, level: float, sought: float) -> float:
    """Return the least move that would have failed the challenger, with `POWER`."""
    error = float(found.error)
    if not np.isfinite(error):
        return float("inf")
    return margin + error * float(boundary(error, sought, level / 2) + ndtri(POWER))


class _Effective(NamedTuple):
    """Counts as they would be were requests independent, and of how many clusters they are."""

    bad: Floats
    asked: Floats
    clusters: Floats

    @property
    def share(self) -> Floats:
        return _over(self.bad, self.asked)


def _effective(tally: Tally, effect: Floats) -> _Effective:
    """Return counts divided by their design effect."""
    clusters = np.count_nonzero(tally.asked, axis=-1)
    return _Effective(
        tally.bad.sum(-1) / effect, tally.asked.sum(-1) / effect, np.asarray(clusters, float)
    )


def _effect(mine: Tally, before: Tally | None) -> Floats:
    """Return the design effect of a share, or of the difference of two: at least 1.

    It is how much more its clusters let it vary than independent requests would: clusters of
    entities, and stretches of time, which add as in Cameron, Gelbach, Miller (2011), Robust
    inference with multiway clustering. What befalls both arms at once (a slow minute, rows that no
    model can score) is no spread of their difference.
    """
    variance = _binomial_variance(mine)
    if before is not None:
        variance = variance + _binomial_variance(before)
    beyond_one = np.zeros_like(variance)
    for of_time in (False, True):
        part = _left_out(mine, of_time)
        if part is not None:
            before_part = None if before is None else _left_out(before, of_time)
            spread = _jackknife(part if before_part is None else part - before_part)
            beyond_one += _over(np.square(spread), variance) - 1
    return np.maximum(1 + beyond_one, 1.0)


def _binomial_variance(tally: Tally) -> Floats:
    count = tally.asked.sum(-1)
    share = _over(tally.bad.sum(-1), count)
    return _over(share * (1 - share), count)


def _left_out(tally: Tally, of_time: bool) -> Floats | None:
    """Return the share without each cluster of entities, or without each stretch of time."""
    parts = tally.by_time if of_time else (tally.bad, tally.asked)
    if parts is None or parts[0].shape[-1] < 2:
        return None
    bad, asked = parts
    return _over(bad.sum(-1, keepdims=True) - bad, asked.sum(-1, keepdims=True) - asked)


def _share_above(mine: _Effective, before: _Effective, margin: float) -> Deviate:
    low = _held_at(mine, before, margin)
    high = np.clip(low + margin, 0.0, 1.0)
    ratio = _likelihood(mine, mine.share, high) + _likelihood(before, before.share, low)
    root = np.sign(mine.share - before.share - margin) * np.sqrt(np.maximum(2 * ratio, 0))
    variance = _over(high * (1 - high), mine.asked) + _over(low * (1 - low), before.asked)
    known = (mine.asked > 0) & (before.asked > 0)
    known &= np.minimum(mine.clusters, before.clusters) >= FEWEST_CLUSTERS
    z = np.where(known, root, 0.0)
    return Deviate(z, np.sqrt(variance))


def _share_above_limit(mine: _Effective, limit: float) -> Deviate:
    held = np.full_like(mine.share, limit)
    ratio = _likelihood(mine, mine.share, held)
    root = np.sign(mine.share - limit) * np.sqrt(np.maximum(2 * ratio, 0))
    known = (mine.asked > 0) & (mine.clusters >= FEWEST_CLUSTERS)
    return Deviate(np.where(known, root, 0.0), np.sqrt(_over(held * (1 - held), mine.asked)))


def _held_at(mine: _Effective, before: _Effective, margin: float) -> Floats:
    """Return the likeliest share of the champion where the challenger's is `margin` above it.

    The middle root of the cubic of Miettinen and Nurminen (1985), found by halving, which errs
    nowhere: the slope of the likelihood falls all the way.
    """
    low = np.zeros(np.broadcast(mine.asked, before.asked).shape)
    high = np.full_like(low, max(1.0 - margin, 1e-9))
    for _ in range(36):
        middle = (low + high) / 2
        upper = middle + margin
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (
                mine.bad / upper
                - (mine.asked - mine.bad) / (1 - upper)
                + before.bad / middle
                - (before.asked - before.bad) / (1 - middle)
            )
        rising = slope > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return (low + high) / 2


def _likelihood(counted: _Effective, share: Floats, held: Floats) -> Floats:
    """Return the log likelihood of the share that was found over that of the one it is held at."""
    good = counted.asked - counted.bad
    return np.asarray(
        xlogy(counted.bad, _over(share, held)) + xlogy(good, _over(1 - share, 1 - held)), float
    )


def _jackknife(left_out: Floats) -> Floats:
    """Return the standard error by what leaving out each cluster changes."""
    clusters = left_out.shape[-1]
    centred = left_out - np.nanmean(left_out, axis=-1, keepdims=True)
    variance = (clusters - 1) / clusters * np.nansum(np.square(centred), axis=-1)
    return np.asarray(np.sqrt(variance), float)


def _df(count: Floats) -> Floats:
    """Return the degrees of freedom: how many clusters of one size would weigh as these do.

    Carter, Schnepel, Steigerwald (2017), Asymptotic behavior of a t-test robust to cluster
    heterogeneity.
    """
    return np.maximum(_over(np.square(count.sum(-1)), np.square(count).sum(-1)) - 1, 0.0)


def _deviate(root: Floats, error: Floats, df: Floats) -> Deviate:
    """Return a deviate of Student's distribution as one of the normal with the same tail."""
    tail = stdtr(np.maximum(df, _LEAST_DF), -np.abs(root))
    return Deviate(-ndtri(np.maximum(tail, 1e-300)) * np.sign(root), error)


def _log_spread(count: Floats, total: Floats, squares: Floats) -> Floats:
    """Return the log of a standard deviation; the floor is a thousandth, to which scores are."""
    mean = _over(total, count)
    return 0.5 * np.log(np.maximum(_over(squares, count) - np.square(mean), 1.0))


def _over(above: Floats, below: Floats) -> Floats:
    """Return a quotient, 0 where there is nothing to divide by."""
    above, below = np.asarray(above, float), np.asarray(below, float)
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)
