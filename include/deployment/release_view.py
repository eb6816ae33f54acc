"""Say how the releases of a use case stand, as a page shows it: from the records, in plain words.

Light, as a node shows it too: it reads what the judge has written, and judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from include.deployment.release_plan import ReleasePlan
from include.errors import ConfigError
from include.records.records import Freeze, Records, Release

LAST = 8  # releases that have ended and are shown
_COLUMNS = ("challenger", "champion")
_BURN = "burn rate"
_SHARES = ("errors", "slow", "invalid", "parity")


@dataclass(frozen=True)
class StepView:
    """A step as a page draws it; `state` is done, now or later."""

    name: str
    state: str


@dataclass(frozen=True)
class Metric:
    """A line of the evidence; `more` is what else is known of it."""

    name: str
    word: str
    challenger: str
    champion: str
    more: str


@dataclass(frozen=True)
class Shown:
    """A release that has not ended, or how one has; `tone` is good, bad, held or plain."""

    model: int
    partition: str
    state: str
    tone: str
    since: str
    says: str = ""
    word: str = ""
    ends_at: str = ""
    judged: str = ""
    steps: Sequence[StepView] = ()
    evidence: Sequence[Metric] = ()
    causes: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ReleaseView:
    """All that a page shows of the releases of a use case."""

    champion: int | None
    now: Shown | None
    waiting: Shown | None
    frozen: str
    last: Sequence[Shown]


def read_view(records: Records, use_case: str) -> ReleaseView:
    """Return how the releases of a use case stand."""
    releases = records.releases
    now, found = releases.now(), releases.of(use_case, limit=LAST + 3)
    current = releases.running(use_case) or releases.watched(use_case)
    waiting = releases.waiting(use_case)
    beat, notes = releases.last_beat(use_case), list[str]()
    judged = ""
    if current is not None:
        if beat is not None and beat.release_id == current.id:
            judged = _ago(now - beat.at)
        notes = [
            f"node {guard.node} sends its traffic home: {guard.reason}"
            for guard in releases.guards(use_case, current.id)
        ]
    ended = [release for release in found if release.ended_at is not None]
    return ReleaseView(
        champion=records.routes.get(use_case).champion,
        now=None if current is None else _shown(current, now, judged, notes),
        waiting=None if waiting is None else _shown(waiting, now),
        frozen=_freeze(releases.frozen(use_case)),
        last=[_ended(release, now) for release in ended[:LAST]],
    )


def _shown(release: Release, now: datetime, judged: str = "", notes: Sequence[str] = ()) -> Shown:
    """Return a release that has not ended."""
    last: Mapping[str, Any] = release.verdicts[-1] if release.verdicts else {}
    state, tone = _state(release)
    is_fresh = last.get("step") == release.step
    return Shown(
        model=release.challenger,
        partition=release.partition,
        state=state,
        tone=tone,
        since=_moment(release.entered_at, now),
        says=str(last.get("reason", "")) if is_fresh else _first_words(release),
        word=str(last.get("word", "")) if is_fresh else "",
        ends_at=_end(last, now) if is_fresh else "",
        judged=judged,
        steps=_steps(release),
        evidence=_evidence(last) if is_fresh else (),
        causes=[_cause(cause) for cause in last.get("causes", ())] if is_fresh else (),
        notes=notes,
    )


def _first_words(release: Release) -> str:
    if release.state == "waiting":
        return "it waits for the release under way to end, or for a freeze to be over"
    if release.state == "trying" and release.paused:
        return "a person lets it go on"
    if release.state == "trying":
        return "a node has to load it first"
    return "it is not judged yet"


def _ended(release: Release, now: datetime) -> Shown:
    tones = {"promoted": "good", "rolled_back": "bad", "aborted": "held"}
    return Shown(
        model=release.challenger,
        partition=release.partition,
        state=release.state.replace("_", " "),
        tone=tones.get(release.state, "plain"),
        since=_moment(release.ended_at or release.entered_at, now),
        says=release.reason,
    )


def _state(release: Release) -> tuple[str, str]:
    """Return a release's state in a few words, and its tone."""
    if release.state == "running":
        name = _name(release)
        if release.suspended:
            return f"{name}, suspended", "held"
        return (f"{name}, paused", "held") if release.paused else (name, "good")
    if release.state == "trying" and release.paused:
        return "being tried, paused", "held"
    names = {"waiting": "waiting", "trying": "being tried", "watched": "champion, watched"}
    tones = {"waiting": "plain", "trying": "plain", "watched": "good"}
    return names.get(release.state, release.state), tones.get(release.state, "plain")


def _name(release: Release) -> str:
    plan = _plan(release)
    return _step_name(plan.steps[release.step].share) if plan else f"step {release.step + 1}"


def _step_name(share: int) -> str:
    return f"{share / 100:g} %" if share else "shadow"


def _plan(release: Release) -> ReleasePlan | None:
    """Return the plan; None where a later version wrote it."""
    try:
        plan = ReleasePlan.read(release.id, release.plan)
        if release.state == "running":
            plan.step(release.step)
    except ConfigError:
        return None
    return plan


def _steps(release: Release) -> list[StepView]:
    plan = _plan(release)
    if plan is None:
        return []
    names = [_step_name(step.share) for step in plan.steps]
    names += ["champion, watched"] if plan.watch else ["champion"]
    at = {"running": release.step, "watched": len(plan.steps)}.get(release.state, -1)
    return [
        StepView(name, "done" if number < at else "now" if number == at else "later")
        for number, name in enumerate(names)
    ]


def _evidence(verdict: Mapping[str, Any]) -> list[Metric]:
    """Return the lines of a verdict's evidence."""
    found = []
    for name, value in (verdict.get("evidence") or {}).items():
        told = dict(value) if isinstance(value, Mapping) else {"is": value}
        if name == _BURN:
            found.append(_burn(told))
            continue
        word = str(told.pop("word", ""))
        first = [_figure(name, told.pop(column, None)) for column in _COLUMNS]
        # How likely the worsening is, against what fails: of use to a test, not to a reader.
        for internal in ("evidence", "fails_at"):
            told.pop(internal, None)
        known = {key: one for key, one in told.items() if one is not None}
        more = [
            str(one) if key == "reason" else f"{key.replace('_', ' ')} {_figure(name, one)}"
            for key, one in known.items()
        ]
        found.append(Metric(name.replace("_", " "), word, first[0], first[1], ", ".join(more)))
    return found


def _burn(told: Mapping[str, Any]) -> Metric:
    """Return the line of the burn rate: of each arm, times what the objective allows."""
    rates, more = [], ["times the budget, in 10 min"]
    for arm, whose in zip(("", "champion "), ("its", "the champion's"), strict=True):
        rates.append(_figure(_BURN, told.get(f"{arm}in 10 min")))
        short, bad, asked = (
            _figure(_BURN, told.get(f"{arm}{key}")) for key in ("in 2 min", "bad", "requests")
        )
        if asked:
            more.append(f"{whose} in 2 min {short}, {bad} bad of {asked}")
    return Metric(_BURN, "", rates[0], rates[1], "; ".join(more))


def _figure(metric: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2%}" if metric in _SHARES and value <= 1 else f"{round(value, 4):.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cause(cause: Mapping[str, Any]) -> str:
    kind = cause.get("cause")
    if kind == "error":
        return f"{cause.get('count')} errors: {cause.get('kind')}"
    if kind == "node":
        return f"{cause.get('errors')} of the errors on {cause.get('node')}"
    if kind == "change":
        of = f" of {cause['use_case']}" if cause.get("use_case") else ""
        at = f", at {cause['at']}" if cause.get("at") else ""
        return f"changed meanwhile: {cause.get('change')}{of}{at}"
    told = [f"{name} {value}" for name, value in cause.items() if name != "cause"]
    return f"{kind}: {', '.join(told)}"


def _freeze(frozen: Freeze | None) -> str:
    if frozen is None:
        return ""
    return f"until {frozen.until:%Y-%m-%d %H:%M} UTC, by {frozen.actor}: {frozen.reason}"


def _end(verdict: Mapping[str, Any], now: datetime) -> str:
    text = verdict.get("ends_at")
    if not text:
        return ""
    end = datetime.fromisoformat(str(text))
    return f"{end:%Y-%m-%d %H:%M:%S} UTC" + (f", in {_long(end - now)}" if end > now else "")


def _moment(at: datetime, now: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC, {_ago(now - at)}"


def _ago(age: timedelta) -> str:
    return f"{_long(age)} ago"


def _long(time: timedelta) -> str:
    """Return a time in the unit in which people would say it."""
    seconds = max(0, round(time.total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
