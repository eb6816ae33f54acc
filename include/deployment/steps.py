"""Judge a release as it stands: pass, hold or fail, and what is to be done. Pure: no clock, no I/O.

The order in which reasons count: a node's guard and what burns, since they cannot wait; then a node
that loads the model no more; then the tests of the metrics; then whatever holds a step; then its
bake and minimum; then its deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.deployment import levels
from include.deployment.burn_rate import BurnVerdict, arm_burn, causes, judge_burn
from include.deployment.decision import Action, Decision, Word
from include.deployment.metric_verdicts import (
    Offline,
    Verdicts,
    judge_by_limits,
    judge_metrics,
    limits_broken,
)
from include.deployment.release_plan import PlannedStep, ReleasePlan
from include.deployment.unseen import NOT_KNOWN, unseen
from include.deployment.watched import judge_watched
from include.deployment.window_sums import StepWindows
from include.predictions.window_counts import CHALLENGER, CHAMPION, ERRORS, REQUESTS, SCORED
from include.records.nodes import Observation
from include.records.release_reports import Guard, Window
from include.records.release_rows import Release

ENDS = 2  # unclean ones of a node in a step that are no accident any more


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
    beside: Sequence[Release] = (),
) -> Decision:
    """Return what is to be done with a release that is running or watched.

    `beat_age` is for how many seconds nobody had judged it, `now` by the clock that the release's
    instants are by. `offline` is what is known of it beside the windows (parity, AUC), `changes`
    what else is under way, for the causes. `beside` are releases that were under way since it is
    watched, and in which nodes counted nothing of it (`watched_windows`).

    Raises:
        ValueError: windows of another form than this version counts in.
        ConfigError: the plan has no such step.
    """
    share = plan.steps[release.step].share if release.step < len(plan.steps) else 0
    found = StepWindows(windows, release.step, share=share)
    case = _Case(release, plan, found, observations, guards, now, offline, changes)
    if release.state == "watched":
        return judge_watched(release, plan, found, guards, now, changes=changes, beside=beside)
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
            return self.decide("hold", "abort", reason, burn=burn, about=("refused by a node",))
        hold, sums = self._held(burn) + self._unready(), self.windows.sums()
        broken = limits_broken(self.plan, sums, champion=True)
        verdicts = (
            judge_by_limits(self.plan, sums, offline=self.offline)
            if broken
            else judge_metrics(self.plan, sums, absolute=False, offline=self.offline)
        )
        too_little = unseen(self.plan, sums, absolute=bool(broken))
        for name in too_little:
            verdicts.evidence[name]["word"] = NOT_KNOWN
        hold += verdicts.held + [reason for reason in too_little.values() if reason]
        about = _common(broken, verdicts, burn)
        # What both models suffer from says nothing about one of them, by whatever it is measured.
        if verdicts.failed and not burn.together:
            return self.decide("fail", "roll_back", verdicts.failed, verdicts, burn, about=about)
        if hold:
            return self._on_hold(hold, verdicts, burn, about=about)
        return self._passed(broken, verdicts, burn, about=about)

    def suspended(self) -> Decision:
        """Judge whether a release whose traffic is at home goes on: a common cause has passed."""
        until = self._ends_at + timedelta(seconds=self.plan.resume)
        if reason := self._dead(self._burn()):
            return self.decide("fail", "roll_back", reason)
        if self.now >= until:
            return self.decide("hold", "abort", "suspended for longer than release.resume")
        champion = arm_burn(self.windows, CHAMPION, self._minute, self.plan.slo)
        if champion.burns(1):
            reason = "suspended: the champion fails too"
            return self.decide("hold", "stay", reason, about=("suspended",))
        return self.decide("hold", "resume", "the champion fails no more; the step begins anew")

    def decide(
        self,
        word: Word,
        action: Action,
        reason: str,
        verdicts: Verdicts | None = None,
        burn: BurnVerdict | None = None,
        *,
        about: tuple[str, ...] = (),
    ) -> Decision:
        """Return a decision with its evidence, and with causes where something is wrong."""
        evidence = dict(verdicts.evidence) if verdicts else {}
        if burn is not None:
            evidence["burn rate"] = {
                **burn.challenger.plain(),
                **{f"champion {name}": value for name, value in burn.champion.plain().items()},
            }
        told = [] if word == "pass" else causes(self.windows, CHALLENGER, changes=self.changes)
        return Decision(word, action, reason, evidence, told, self._ends_at, about)

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
        step, own = self._step, self.windows.of(CHALLENGER, answering=CHALLENGER)
        # Those that say something of the model: its scores and its errors. Neither what was refused
        # or scored without its features does, as the store was away, nor what the champion answered
        # in its place.
        scored = sum(one.counts.column(SCORED) for one in own)
        asked = scored + self.windows.arm_total(CHALLENGER).column(ERRORS)
        entities = self.windows.entities(CHALLENGER)
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
        self,
        reasons: list[str],
        verdicts: Verdicts,
        burn: BurnVerdict,
        *,
        about: tuple[str, ...],
    ) -> Decision:
        """Return a hold; at the deadline it ends the release, or sends its traffic home."""
        reason = "; ".join(reasons)
        if self.now < self._ends_at:
            return self.decide("hold", "stay", reason, verdicts, burn, about=about)
        reason = f"deadline: {reason}"
        if burn.together:
            # Of a common cause the challenger is not guilty: it may go on when that has passed.
            about = (*about, "suspended")
            return self.decide("hold", "suspend", reason, verdicts, burn, about=about)
        return self.decide("hold", "abort", reason, verdicts, burn, about=about)

    def _passed(
        self,
        broken: list[str],
        verdicts: Verdicts,
        burn: BurnVerdict,
        *,
        about: tuple[str, ...],
    ) -> Decision:
        """Return a pass, and whether the release goes on by itself."""
        reason = "bake and minimum are reached, nothing is worse than its margin"
        if broken:
            reason = (
                f"the champion is above its own limit of {', '.join(broken)}; the challenger is "
                "within all limits"
            )
        by_person = ""
        if self.release.paused:
            by_person = "paused"
        elif self.plan.kind == "shadow":
            by_person = "the plan is shadow: a person promotes it"
        if by_person and self.now >= self._ends_at:
            late, about = f"deadline: {by_person}", (*about, "deadline")
            return self.decide("pass", "abort", late, verdicts, burn, about=about)
        action: Action = "advance"
        if by_person:
            action, reason = "stay", f"{reason}; {by_person}"
        elif self.release.step + 1 >= len(self.plan.steps):
            action = "promote"
        return self.decide("pass", action, reason, verdicts, burn, about=about)

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


def _common(broken: list[str], verdicts: Verdicts, burn: BurnVerdict) -> tuple[str, ...]:
    """Return what of a step a person is asked about: what is not the challenger's fault alone."""
    champion = [f"champion above {name}" for name in broken]
    together = ["both burn"] if burn.together else []
    return (*together, *champion, *verdicts.named("hold"))
