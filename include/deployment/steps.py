"""Judge a release as it stands: pass, hold or fail, and what is to be done. Pure: no clock, no I/O.

The order in which reasons count: a node's guard and what burns, since they cannot wait; then a node
that loads the model no more; then the tests of the metrics; then whatever holds a step; then its
bake and minimum; then its deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from include.deployment import levels
from include.deployment.burn_rate import BurnVerdict, arm_burn, burns_alone, causes, judge_burn
from include.deployment.metric_verdicts import (
    Offline,
    Verdicts,
    as_challenger,
    judge_metrics,
    limits_broken,
)
from include.deployment.release_plan import PlannedStep, ReleasePlan
from include.deployment.unseen import NOT_KNOWN, unseen
from include.deployment.window_sums import StepWindows
from include.predictions.window_counts import CHALLENGER, CHAMPION, REQUESTS
from include.records.nodes import Observation
from include.records.release_reports import Guard, Window
from include.records.release_rows import Release

Word = Literal["pass", "hold", "fail"]
Action = Literal["stay", "advance", "promote", "suspend", "resume", "abort", "roll_back"]
ENDS = 2  # unclean ones of a node in a step that are no accident any more


@dataclass(frozen=True)
class Decision:
    """What a release is found to be, and what is to be done with it.

    `action` promote means of a watched release that its watch is over, resume that a suspended one
    goes on with its step. `causes` is what the errors may come of, as data. `asks`: a person is to
    look at it, whatever is done. `ends_at` is when the step, or the watch, ends.
    """

    word: Word
    action: Action
    reason: str
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    causes: list[dict[str, Any]] = field(default_factory=list)
    ends_at: datetime | None = None
    asks: bool = False


def judge(
    release: Release,
    plan: ReleasePlan,
    windows: Sequence[Window],
    observations: Sequence[Observation],
    guards: Sequence[Guard],
    beat_age: float,
    now: datetime,
    *,
    offline: Offline | None = None,
    changes: Sequence[str] = (),
) -> Decision:
    """Return what is to be done with a release that is running or watched.

    `beat_age` is for how many seconds nobody had judged it, `now` by the clock that the release's
    instants are by. `offline` is what is known of it beside the windows (parity, AUC), `changes`
    what else is under way, for the causes.

    Raises:
        ValueError: windows of another form than this version counts in.
        ConfigError: the plan has no such step.
    """
    share = plan.steps[release.step].share if release.step < len(plan.steps) else 0
    found = StepWindows(windows, release.step, share=share)
    case = _Case(release, plan, found, observations, guards, now, offline, changes)
    if release.state == "watched":
        return case.watched()
    if beat_age > plan.resume:
        return case.decide("hold", "abort", f"judge away for {beat_age:.0f} s")
    if not plan.steps:
        return case.decide("pass", "promote", _UNSTEPPED[plan.kind])
    if release.suspended:
        return case.suspended()
    return case.running()


_UNSTEPPED = {
    "first": "the first model: there is no champion to compare with",
    "direct": "the plan has no steps: promoted once it was tried, then watched",
    "canary": "the plan has no steps",
    "shadow": "the plan has no steps",
}


@dataclass(frozen=True)
class _Case:
    release: Release
    plan: ReleasePlan
    windows: StepWindows
    observations: Sequence[Observation]
    guards: Sequence[Guard]
    now: datetime
    offline: Offline | None
    changes: Sequence[str]

    def running(self) -> Decision:
        """Judge a step."""
        burn = self._burn()
        if reason := self._dead(burn):
            return self.decide("fail", "roll_back", reason, burn=burn)
        if reason := self._refused():
            return self.decide("hold", "abort", reason, burn=burn, asks=True)
        hold = self._held(burn) + self._unready()
        broken = limits_broken(self.plan, self.windows.sums(), champion=True)
        verdicts = judge_metrics(
            self.plan, self.windows.sums(), absolute=bool(broken), offline=self.offline
        )
        too_little = unseen(self.plan, self.windows.sums(), absolute=bool(broken))
        for name in too_little:
            verdicts.evidence[name]["word"] = NOT_KNOWN
        hold += verdicts.held + [reason for reason in too_little.values() if reason]
        asks = bool(broken) or burn.together or bool(verdicts.held)
        # What both models suffer from says nothing about one of them, by whatever it is measured.
        if verdicts.failed and not burn.together:
            return self.decide("fail", "roll_back", verdicts.failed, verdicts, burn, asks=asks)
        if hold:
            return self._on_hold(hold, verdicts, burn, asks=asks)
        return self._passed(broken, verdicts, burn)

    def watched(self) -> Decision:
        """Judge a champion by its limits and its SLO alone: no other arm has traffic.

        A guard is of a step, and of an arm, that have none any more: told late, it takes nothing
        back, as the model's own answers do if it is as bad as that. A person is asked.
        """
        reasons = []
        burn = arm_burn(self.windows, CHAMPION, self._minute, self.plan.slo)
        level = levels.burn_level(self.plan)
        if burns_alone(self.windows, self._minute, self.plan.slo, level):
            reasons.append(f"it burns at {burn.rates[0]:.1f} times what the SLO allows")
        verdicts = judge_metrics(self.plan, self.windows.sums(), absolute=True, champion=True)
        reasons += [verdicts.failed] if verdicts.failed else []
        evidence = {**verdicts.evidence, "burn rate": burn.plain()}
        ends = self.release.entered_at + timedelta(seconds=self.plan.watch)
        if reasons:
            once = not self.release.rolled_back_by_itself and self.release.champion is not None
            told = causes(self.windows, CHAMPION, changes=self.changes)
            action: Action = "roll_back" if once else "stay"
            return Decision("fail", action, "; ".join(reasons), evidence, told, ends, asks=True)
        sums = as_challenger(self.windows.sums())
        unclear = [reason for reason in unseen(self.plan, sums, absolute=True).values() if reason]
        late = [
            f"late, the guard of {guard.node} in its steps: {guard.reason}" for guard in self.guards
        ]
        is_over = self.now >= ends
        after: Action = "promote" if is_over else "stay"
        if unclear:
            reason = "; ".join([*unclear, *late])
            return Decision("hold", after, reason, evidence, [], ends, asks=True)
        reason = "; ".join(["its watch is over" if is_over else "watched", *late])
        return Decision("pass", after, reason, evidence, [], ends, asks=bool(late))

    def suspended(self) -> Decision:
        """Judge whether a release whose traffic is at home goes on: a common cause has passed."""
        until = self._ends_at + timedelta(seconds=self.plan.resume)
        if reason := self._dead(self._burn()):
            return self.decide("fail", "roll_back", reason)
        if self.now >= until:
            return self.decide("hold", "abort", "suspended for longer than release.resume")
        champion = arm_burn(self.windows, CHAMPION, self._minute, self.plan.slo)
        if champion.burns(1):
            return self.decide("hold", "stay", "suspended: the champion fails too", asks=True)
        return self.decide("hold", "resume", "the champion fails no more; the step begins anew")

    def decide(
        self,
        word: Word,
        action: Action,
        reason: str,
        verdicts: Verdicts | None = None,
        burn: BurnVerdict | None = None,
        *,
        asks: bool = False,
    ) -> Decision:
        """Return a decision with its evidence, and with causes where something is wrong."""
        evidence = dict(verdicts.evidence) if verdicts else {}
        if burn is not None:
            evidence["burn rate"] = {
                **burn.challenger.plain(),
                **{f"champion {name}": value for name, value in burn.champion.plain().items()},
            }
        told = [] if word == "pass" else causes(self.windows, CHALLENGER, changes=self.changes)
        return Decision(word, action, reason, evidence, told, self._ends_at, asks)

    def _burn(self) -> BurnVerdict:
        level = levels.burn_level(self.plan)
        return judge_burn(self.windows, self._minute, self.plan.slo, level)

    def _dead(self, burn: BurnVerdict) -> str:
        """Return why it cannot wait for a test; empty where it can."""
        if self.guards:
            guard = self.guards[0]
            return f"the guard of {guard.node} sent its traffic home: {guard.reason}"
        for node, ends in self.windows.unclean_ends(self.observations).items():
            if ends >= ENDS:
                return f"{node} was killed {ends} times in this step"
        if burn.alone:
            rate = burn.challenger.rates[0]
            return f"it burns at {rate:.1f} times what the SLO allows, the champion does not"
        return ""

    def _refused(self) -> str:
        """Return which node loads the challenger no more, and why; empty where none says so.

        Such as of a key that was revoked: it gets no traffic there, and no wait brings any.
        """
        for one in self.observations:
            is_its = one.role == "challenger" and one.version == self.release.challenger
            if one.living and is_its and one.state == "refused":
                return f"{one.node} refuses it: {one.reason}"
        return ""

    def _held(self, burn: BurnVerdict) -> list[str]:
        """Return what holds a step whose time and evidence may be enough."""
        reasons = []
        if burn.together:
            reasons.append("both models burn: a common cause")
        unknown = self.windows.unknown_ends(self.observations)
        reasons += [
            f"{node} has ended without a word, what it answered is not counted yet"
            for node in unknown
        ]
        living = {one.node for one in self.observations if one.living}
        if len(living) < self.plan.min_nodes:
            reasons.append(f"{len(living)} of {self.plan.min_nodes} node(s) give a sign of life")
        return reasons + self._lacking()

    def _lacking(self) -> list[str]:
        """Return the features that the challenger's requests lack too often."""
        rule = self.plan.metrics.get("lacks_feature")
        counts = self.windows.arm_total(CHALLENGER)
        asked = counts.column(REQUESTS)
        if rule is None or rule.limit is None or not asked:
            return []
        return [
            f"{count / asked:.1%} of the requests lack the feature {feature}"
            for feature, count in sorted(counts.lacks.items())
            if count / asked > rule.limit
        ]

    def _unready(self) -> list[str]:
        """Return what of bake and minimum a step has not reached."""
        step, counts = self._step, self.windows.arm_total(CHALLENGER)
        asked, entities = counts.column(REQUESTS), self.windows.entities(CHALLENGER)
        baked = self.release.entered_at + timedelta(seconds=step.bake)
        reasons = []
        if self.now < baked:
            reasons.append(f"bakes until {baked:%Y-%m-%d %H:%M:%S}")
        if asked < step.requests:
            reasons.append(f"{asked} of {step.requests} requests")
        if entities < step.entities:
            reasons.append(f"about {entities:.0f} of {step.entities} entities")
        return reasons

    def _on_hold(
        self, reasons: list[str], verdicts: Verdicts, burn: BurnVerdict, *, asks: bool
    ) -> Decision:
        """Return a hold; at the deadline it ends the release, or sends its traffic home."""
        reason = "; ".join(reasons)
        if self.now < self._ends_at:
            return self.decide("hold", "stay", reason, verdicts, burn, asks=asks)
        # Of a common cause the challenger is not guilty: it may go on when that has passed.
        action: Action = "suspend" if burn.together else "abort"
        return self.decide("hold", action, f"deadline: {reason}", verdicts, burn, asks=asks)

    def _passed(self, broken: list[str], verdicts: Verdicts, burn: BurnVerdict) -> Decision:
        """Return a pass, and whether the release goes on by itself."""
        reason, asks = "bake and minimum are reached, nothing is worse than its margin", False
        if broken:
            reason = (
                f"the champion is above its own limit of {', '.join(broken)}; the challenger is "
                "within all limits"
            )
            asks = True
        by_person = ""
        if self.release.paused:
            by_person = "paused"
        elif self.plan.kind == "shadow":
            by_person = "the plan is shadow: a person promotes it"
        if by_person and self.now >= self._ends_at:
            return self.decide("pass", "abort", f"deadline: {by_person}", verdicts, burn, asks=True)
        action: Action = "advance"
        if by_person:
            action, reason = "stay", f"{reason}; {by_person}"
        elif self.release.step + 1 >= len(self.plan.steps):
            action = "promote"
        return self.decide("pass", action, reason, verdicts, burn, asks=asks)

    @property
    def _step(self) -> PlannedStep:
        return self.plan.step(self.release.step)

    @property
    def _ends_at(self) -> datetime:
        seconds = self._step.deadline if self.plan.steps else 0.0
        return self.release.entered_at + timedelta(seconds=seconds)

    @property
    def _minute(self) -> int:
        return int(self.now.timestamp() // 60)
