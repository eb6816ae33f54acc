"""How fast an arm of a release uses up what its callers may expect, and what that comes of.

Google, The Site Reliability Workbook (2018), chapter 5: alerting on SLOs by burn rates in a long
and a short window. Only what a model can cause counts: `errors` of the windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import ndtri

from include.deployment import sequential
from include.deployment.release_plan import Objective
from include.deployment.sequential import Floats, Tally
from include.deployment.window_sums import StepWindows
from include.predictions.window_counts import CHALLENGER, CHAMPION, ERRORS, REQUESTS

WINDOWS = (10, 2)  # minutes
BURNING = 2.0  # times what the objective allows
LEAST_BAD = 20
LASTING = 3  # minutes that burn by themselves: a restart, however much it fails, is over by then
LEAST_BAD_OTHER = 5  # of the arm that is compared with: it clears nobody by having few requests


@dataclass(frozen=True)
class Burn:
    """How fast an arm burns: times what the objective allows, in the long and the short window.

    `minutes` of the long window burn by themselves.
    """

    rates: tuple[float, float]
    bad: int
    asked: int
    minutes: int = 0

    def burns(self, least: int = LEAST_BAD) -> bool:
        """Tell whether it burns in both windows, by at least so many bad answers."""
        return self.bad >= least and min(self.rates) > BURNING

    def plain(self) -> dict[str, Any]:
        """Return it for a verdict's evidence."""
        rates = {
            f"in {minutes} min": rate for minutes, rate in zip(WINDOWS, self.rates, strict=True)
        }
        return {**rates, "bad": self.bad, "requests": self.asked, "minutes": self.minutes}


def arm_burn(windows: StepWindows, arm: str, minute: int, objective: Objective) -> Burn:
    """Return how fast an arm burns at a minute of the epoch, which may be incomplete."""
    _, times = windows.within(arm, minute - WINDOWS[0], minute)
    return burn_of(times[:, ERRORS], times[:, REQUESTS], objective)


def burn_of(bad: Floats, asked: Floats, objective: Objective) -> Burn:
    """Return how fast an arm burns, from the minutes of the long window, the newest last."""
    allowed = 1 - objective.availability
    rates = [
        float(bad[-length:].sum() / max(1.0, asked[-length:].sum()) / allowed) for length in WINDOWS
    ]
    burning = int((bad > BURNING * allowed * asked).sum())
    return Burn((rates[0], rates[1]), int(bad.sum()), int(asked.sum()), burning)


@dataclass(frozen=True)
class BurnVerdict:
    """What burns: the release's arm alone, or both for a common cause."""

    challenger: Burn
    champion: Burn
    alone: bool
    together: bool


def judge_burn(
    windows: StepWindows, minute: int, objective: Objective, level: float
) -> BurnVerdict:
    """Return whether the challenger burns, alone or with the champion.

    Alone it burns only where it lasts, and where chance does not explain it at the level of a
    window: bad answers of one entity are one event, however many they are.
    """
    mine, champion = (arm_burn(windows, arm, minute, objective) for arm in (CHALLENGER, CHAMPION))
    other = champion.burns(LEAST_BAD_OTHER)
    tallies = _tallies(windows, minute, CHALLENGER, CHAMPION)
    clear = is_clear(tallies[0], tallies[1], objective, level)
    return BurnVerdict(
        mine,
        champion,
        alone=mine.burns() and mine.minutes >= LASTING and not other and clear,
        together=mine.burns() and other,
    )


def is_clear(mine: Tally, champion: Tally, objective: Objective, level: float) -> bool:
    """Tell whether chance does not explain that an arm burns and the other does not."""
    allowed = BURNING * (1 - objective.availability)
    return bool(sequential.share_above(mine, champion, allowed).z >= -ndtri(level))


def burns_alone(windows: StepWindows, minute: int, objective: Objective, level: float) -> bool:
    """Tell whether the champion of a watched release burns; there is no arm to compare it with."""
    allowed = BURNING * (1 - objective.availability)
    deviate = sequential.share_above_limit(_tallies(windows, minute, CHAMPION)[0], allowed)
    burn = arm_burn(windows, CHAMPION, minute, objective)
    return burn.burns() and burn.minutes >= LASTING and bool(deviate.z >= -ndtri(level))


def causes(
    windows: StepWindows,
    arm: str,
    *,
    changes: Sequence[str] = (),
    staleness: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Return what the errors of an arm may come of, the most frequent first of each kind.

    `changes` are what else is under way (a release, a migration), `staleness` by how many seconds
    the features of a view are older than they should be: both as the caller knows them.
    """
    counts = windows.arm_total(arm)
    found: list[dict[str, Any]] = [
        {"cause": "error", "kind": kind, "count": count}
        for kind, count in sorted(counts.error_kinds.items(), key=lambda item: -item[1])
        if count
    ]
    nodes = windows.by_node(arm)
    total = sum(errors for errors, _ in nodes.values())
    found += [
        {"cause": "node", "node": node, "errors": errors, "requests": asked}
        for node, (errors, asked) in sorted(nodes.items(), key=lambda item: -item[1][0])
        if errors and errors >= 0.8 * total and len(nodes) > 1
    ]
    found += [{"cause": "change", "change": change} for change in changes]
    found += [
        {"cause": "stale features", "view": view, "seconds": seconds}
        for view, seconds in (staleness or {}).items()
        if seconds > 0
    ]
    return found


def _tallies(windows: StepWindows, minute: int, *arms: str) -> list[Tally]:
    """Return the errors of arms in the long window, by cluster."""
    found = [windows.within(arm, minute - WINDOWS[0], minute)[0] for arm in arms]
    return [Tally(clusters[:, ERRORS], clusters[:, REQUESTS]) for clusters in found]
