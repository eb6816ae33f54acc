"""The verdict on each metric of a step, with what was seen and which worsening would have been."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from include.deployment import levels, release_metrics, sequential
from include.deployment.release_metrics import Measured, StepSums
from include.deployment.release_plan import ReleasePlan, Rule
from include.deployment.sequential import Floats, Ratio, Tally
from include.predictions.window_counts import PAIRED

SHARES = ("errors", "slow", "invalid")
OFFLINE = ("parity", "auc")  # what is known beside the windows, if it is
BROKEN = 0.01  # level at which a champion counts as above its own limit


@dataclass(frozen=True)
class Offline:
    """What is known of a release beside its windows: parity by cluster, and the loss of AUC.

    `common` says that the features are the champion's too. `told` has by metric what else is to be
    said, such as the reason why it is not known.
    """

    parity: Tally | None = None
    auc: Ratio | None = None
    common: bool = False
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdicts:
    """What was found of each metric; `failed` names those that are worse than tolerated.

    `held` are those of which that speaks against nobody: a step waits, and a person is asked.
    """

    failed: str
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)

    def named(self, word: str) -> list[str]:
        """Return the metrics of a word, each as the kind of reason that it is."""
        return [f"{word} {name}" for name, found in self.evidence.items() if found["word"] == word]


def judge_metrics(
    plan: ReleasePlan,
    sums: StepSums,
    *,
    absolute: bool,
    champion: bool = False,
    shared: Collection[str] = (),
    offline: Offline | None = None,
) -> Verdicts:
    """Return the verdict on every metric.

    `absolute` compares with limits in place of a champion. `champion`: what is judged answers as
    champion, as a watched release does. `shared` names metrics that are held in place of failed.
    """
    if champion:
        sums = as_challenger(sums)
    evidence: dict[str, dict[str, Any]] = {}
    failed, held = list[str](), list[str]()
    found = release_metrics.measure(plan.metrics, sums, absolute=absolute)
    found |= _offline(plan, offline or Offline(), absolute=absolute)
    for name, parts in found.items():
        level = levels.metric_level(plan, name)
        worst = max(float(part.log_evidence()) for part in parts)
        fails = worst >= -np.log(level)
        # Features that both models are asked with are no fault of one of them.
        is_common = name in shared or (name == "parity" and offline is not None and offline.common)
        evidence[name] = {
            "word": "pass" if not fails else "hold" if is_common else "fail",
            **_seen(name, plan.metrics[name], sums, parts, level, absolute, offline),
            "evidence": float(np.exp(min(worst, 700))),
            "fails_at": 1 / level,
        }
        if fails:
            also = ", and the champion is above it too" if name in shared else ""
            (held if is_common else failed).append(_told(name, evidence[name]) + also)
    return Verdicts("; ".join(failed), evidence | _not_known(plan, offline, found, absolute), held)


def judge_by_limits(
    plan: ReleasePlan, sums: StepSums, *, offline: Offline | None = None
) -> Verdicts:
    """Return the verdict on the challenger of a champion that is above a limit of its own.

    It is judged by the limits alone. Where both are above one, that may be of a common cause, and
    lasts in the sums longer than the cause does: only what is worse than the champion as well is
    the challenger's own fault.
    """
    compared = judge_metrics(plan, sums, absolute=False).evidence
    shared = {
        name
        for name in SHARES
        if name in compared
        and compared[name]["word"] != "fail"
        and compared[name]["champion"] > (plan.metrics[name].limit or 0.0)
    }
    return judge_metrics(plan, sums, absolute=True, shared=shared, offline=offline)


def limits_broken(plan: ReleasePlan, sums: StepSums, *, champion: bool) -> list[str]:
    """Return the metrics whose limit is exceeded, of the champion or of the challenger."""
    if champion:
        sums = as_challenger(sums)
    found = release_metrics.measure(plan.metrics, sums, absolute=True)
    return [
        name for name, parts in found.items() if float(parts[0].log_evidence()) >= -np.log(BROKEN)
    ]


def as_challenger(sums: StepSums) -> StepSums:
    """Return sums in which the champion stands in the challenger's place."""
    arms = sums.champion_assigned, sums.champion_answered
    return StepSums(*arms, *arms)


def _not_known(
    plan: ReleasePlan, offline: Offline | None, found: Mapping[str, Any], absolute: bool
) -> dict[str, dict[str, Any]]:
    """Return the metrics that are judged and of which nothing is known, and why."""
    if offline is None:
        return {}
    names = [name for name in OFFLINE if name in plan.metrics and name not in found]
    return {
        name: {"word": "not known", **offline.told.get(name, {})}
        for name in names
        if not (absolute and plan.metrics[name].limit is None)
    }


def _offline(plan: ReleasePlan, offline: Offline, *, absolute: bool) -> dict[str, list[Measured]]:
    found = {}
    if offline.parity is not None and (rule := plan.metrics.get("parity")) is not None:
        limit = rule.limit or 0.0
        deviate = sequential.share_above_limit(offline.parity, max(limit, 1e-6))
        found["parity"] = [Measured(deviate, release_metrics.sought(limit))]
    if absolute:  # a loss has no limit of its own
        return found
    if offline.auc is not None and (rule := plan.metrics.get("auc")) is not None:
        margin = rule.margin or 0.0
        # Only a loss is worse: a gain, however great, is none.
        loss = offline.auc._replace(value=np.maximum(offline.auc.value, 0.0))
        deviate = sequential.beyond(loss, margin)
        found["auc"] = [Measured(deviate, release_metrics.sought_move(margin))]
    return found


def _seen(
    name: str,
    rule: Rule,
    sums: StepSums,
    parts: list[Measured],
    level: float,
    absolute: bool,
    offline: Offline | None,
) -> dict[str, Any]:
    """Return what was found of a metric, and the least worsening that would have failed it."""
    if name in SHARES:
        mine, champion = (arm.tally(name) for arm in sums.arms(name))
        margin = (rule.limit if absolute else rule.margin) or 0.0
        before = None if absolute else champion
        seen = sequential.seen_share(
            mine, before, margin, level=level, sought=release_metrics.sought(margin)
        )
        told: dict[str, Any] = {"challenger": _share(mine), "requests": int(mine.asked.sum())}
        told |= {"limit": margin} if absolute else {"champion": _share(champion), "margin": margin}
        return told | {"would_have_seen": seen}
    if name == "parity":
        assert offline is not None
        assert offline.parity is not None
        shown = {"challenger": _share(offline.parity), "limit": rule.limit}
        return shown | dict(offline.told.get(name, {}))
    margin = rule.margin or 0.0
    told = {}
    if name == "scores":
        # The first part is what the report is about: the pairs, where there are enough.
        paired = release_metrics.paired_scores(sums)
        found = release_metrics.arm_scores(sums) if paired is None else paired
        told["pairs"] = 0 if sums.pairs is None else int(sums.pairs[..., PAIRED].sum())
        told["spread"] = float(np.exp(release_metrics.score_spread(sums).value))
    else:
        found = release_metrics.decisions(sums) if name == "decisions" else _auc(offline)
    seen = sequential.seen_move(
        found, margin, level=level / parts[0].sides * 2, sought=parts[0].sought
    )
    if name == "auc" and offline is not None:
        told |= offline.told.get(name, {})
    return {"moved": float(found.value), "margin": margin, "would_have_seen": seen, **told}


def _auc(offline: Offline | None) -> Ratio:
    assert offline is not None
    assert offline.auc is not None
    return offline.auc


def _share(tally: Tally) -> float:
    asked: Floats = tally.asked.sum()
    return float(tally.bad.sum() / asked) if asked else 0.0


def _told(name: str, found: dict[str, Any]) -> str:
    """Return in words why a metric fails."""
    if name == "auc":
        return f"auc: {found['moved']:.3g} lost on {found.get('pairs', 'its')} pairs, margin " + (
            f"{found['margin']:g}"
        )
    if "moved" in found:
        unit = " sd" if name == "scores" else ""
        spread = f", spread {found['spread']:.2f} times" if "spread" in found else ""
        return f"{name}: moved by {found['moved']:+.3g}{unit}{spread}, margin {found['margin']:g}"
    if "champion" in found:
        return (
            f"{name}: {found['challenger']:.2%}, the champion {found['champion']:.2%}, margin "
            f"{found['margin']:.2%}"
        )
    return f"{name}: {found['challenger']:.2%}, the limit is {found['limit']:.2%}"
