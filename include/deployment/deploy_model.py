"""Release a judged candidate: ask for it, wait until a serving node has tried it, make it champion.

And take it back.

No process is started here. `request_release` names the candidate as `challenger` in the routing
row; a node that follows the row verifies the bundle, tries it in a child with its golden rows and
reports; `finish_release` then makes it champion, in one transaction with the audit row, if the
champion is still the one that it was judged against. A DAG does the three steps in tasks (option
`phase`: request, then a deferred wait on `rollout.answered`, then finish).

The routing row is the truth and moves outside the memo: the stage looks at it every time and acts
on a difference only.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from include.deployment.rollout import Readiness, mirror, readiness, release_hold, rollback
from include.errors import ArtefactError, Conflict, MissingPartition, Unavailable
from include.evaluation.verdict import judged_model, not_passed
from include.pipeline.stage import Outcome, Read, Stage, Work
from include.records.records import AuditEntry, Model, Records, Route

__all__ = [
    "compute",
    "effects",
    "finish_release",
    "observed",
    "reads",
    "release_hold",
    "request_release",
    "rollback",
]

log = logging.getLogger(__name__)

NAME = "deploy_model"
FIELDS: tuple[str, ...] = ()
LIBRARIES: tuple[str, ...] = ()

WAIT_SECONDS = 180.0
# for a first sign of life: a node that runs gives one every few seconds, once there is a routing
# row.
NODE_SECONDS = 20.0
SERVED_SECONDS = 15.0
_POLL_SECONDS = 0.2
_WITHOUT_MODEL = "sha256:" + hashlib.sha256(b"nothing to release").hexdigest()


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may be released, against which version it was judged, and in which generation of the
    routing row.
    """

    model: Model
    opponent: int | None
    generation: int


def reads(work: Work) -> list[Read]:
    """Return the verdict and the package of the partition."""
    found = []
    for stage in ("evaluate_model", "package_model"):
        result = work.result(stage)
        if result is None or result.state == "failed":
            raise MissingPartition(
                f"{work.use_case.name}: {stage} is not done for {work.key}; run `evergreen run "
                f"{stage} --use-case {work.use_case.name} --partition {work.key}`",
                keys=(work.key,),
            )
        found.append(Read(stage, work.key, result.digest))
    return found


def compute(work: Work) -> Outcome:
    """Release the partition's candidate if it may be, as far as the option `phase` says (default:
    all the way).

    Raises: Conflict: the champion is not the one that the candidate was judged against; it must be
        judged again. Unavailable: no serving node has tried it in time. ArtefactError: a serving
        node has tried it and refuses it; what was served goes on.
    """
    decided = decide(work)
    if isinstance(decided, Outcome):
        return decided
    phase = work.options.get("phase", "all")
    if work.rehearsal:
        return _done(decided.model, work.records.routes.get(work.use_case.name))
    if phase in ("request", "all"):
        request_release(work, decided)
    if phase == "request":
        waiting = f"waiting for a serving node to try model {decided.model.version}"
        return Outcome(
            "failed",
            "",
            waiting,
            outputs={"error": "Unavailable", "version": decided.model.version},
        )
    if phase == "all":
        _await_nodes(work, float(work.options.get("wait", WAIT_SECONDS)))
    return finish_release(work, decided)


def effects(work: Work, outcome: Outcome) -> dict[str, Any]:
    """Mirror the routing row in the registry's aliases; where a kill came in between, this
    repairs them.
    """
    route = work.records.routes.get(work.use_case.name)
    done: dict[str, Any] = {"champion": route.champion, "generation": route.generation}
    if outcome.state == "done":
        done["aliases"] = mirror(work.settings, work.records, route)
    return done


def decide(work: Work) -> Candidate | Outcome:
    """Return the candidate of the partition, or why nothing is released; changes nothing.

    Raises:
        Conflict: it must be judged again, against the champion that there is now.
    """
    name, key = work.use_case.name, work.key
    if work.mode != "live":
        return _nothing(
            "skipped", f"{key} is recorded as {work.mode}: it is judged, never released"
        )
    if work.target != "deployed":
        return _nothing("skipped", f"{key} has the target {work.target}, not deployed")
    refusal = not_passed(work.result("evaluate_model"))
    if refusal is not None:
        return _nothing("skipped", refusal)
    packaged = work.result("package_model")
    if packaged is None or packaged.state != "done":
        return _nothing(
            "skipped",
            f"it is not packaged: {packaged.reason if packaged else 'the bento stage has not run'}",
        )
    return _decide_against(work, judged_model(work), work.records.routes.get(name))


def _decide_against(work: Work, model: Model, route: Route) -> Candidate | Outcome:
    """Compare the candidate with what serves, what is held and what is on its way."""
    name, key = work.use_case.name, work.key
    if route.champion == model.version:
        return _done(model, route)
    if model.model_digest in route.held:
        hint = f"`evergreen rollback {name} --release {model.version}` lifts it"
        return _nothing(
            "held", f"model {model.version} was rolled back and its digest is on hold; {hint}"
        )
    if _released_before(work, model):
        return _done(
            model, route, f"it was released, and model {route.champion} has replaced it since"
        )
    champion = work.records.models.get(name, route.champion) if route.champion is not None else None
    if champion is not None and champion.model_digest == model.model_digest:
        return _done(
            model, route, f"it equals the champion, model {champion.version}: nothing to release"
        )
    if route.watermark is not None and route.watermark > key:
        return _nothing(
            "skipped",
            f"{route.watermark} is live already; an older partition never replaces a newer one",
        )
    coming = (
        work.records.models.get(name, route.challenger)
        if route.challenger not in (None, model.version)
        else None
    )
    if coming is not None and coming.partition > key:
        return _nothing(
            "skipped", f"model {coming.version} of the newer {coming.partition} is being released"
        )
    judged = _judged(work, model)
    if min(model.generation, judged.generation) < route.rollback_generation:
        return _nothing(
            "held",
            f"model {model.version} was trained or judged before the last rollback; train a new "
            "candidate",
        )
    if route.champion != judged.opponent:
        raise Conflict(
            f"{name} {key}: model {model.version} was judged against {_named(judged.opponent)}, "
            f"but {_named(route.champion)} serves; judge it again: `evergreen run evaluate_model "
            f"--use-case {name} --partition {key}`",
            judge_again=(model.version, route.generation),
        )
    return judged


def request_release(work: Work, candidate: Candidate) -> Route:
    """Name the candidate as challenger in the routing row, by compare-and-set; it is there
    already: nothing happens.
    """
    name, model = work.use_case.name, candidate.model
    route = work.records.routes.get(name)
    if route.challenger == model.version:
        return route
    return work.records.routes.change(
        name,
        set={"challenger": model.version, "step": 0, "weight": 0.0},
        entry=_entry(work, "release.requested", model, {}),
        expect_generation=route.generation,
        expect_champion=candidate.opponent,
        judged_generation=candidate.generation,
    )


def observed(work: Work) -> Readiness:
    """Return what the serving nodes say of the partition's challenger."""
    name = work.use_case.name
    return readiness(work.records.routes.get(name), work.records.nodes.of(name))


def finish_release(work: Work, candidate: Candidate) -> Outcome:
    """Make the challenger champion, if a node has tried it and nothing has moved on; then wait
    until it is served.
    """
    name, model = work.use_case.name, candidate.model
    route = work.records.routes.get(name)
    found = readiness(route, work.records.nodes.of(name))
    if route.challenger != model.version:
        raise Conflict(
            f"{name} {work.key}: model {model.version} is no longer being released; look at "
            f"`evergreen status {name}`"
        )
    if found.state == "waiting":
        raise Unavailable(
            f"{name} {work.key}: model {model.version} is not released: {found.reason}"
        )
    if found.state == "failed":
        _withdraw(work, candidate, route, found.reason)
        raise ArtefactError(
            f"{name} {work.key}: model {model.version} is not released: {found.reason}; what was "
            "served goes on"
        )
    entry = _entry(
        work,
        "release.promoted",
        model,
        {"judged_against": candidate.opponent, "previous": route.champion},
    )
    route = work.records.routes.change(
        name,
        set={
            "champion": model.version,
            "previous": _last_good(work, route),
            "challenger": None,
            "step": 0,
            "weight": 0.0,
        },
        entry=entry,
        expect_generation=route.generation,
        expect_champion=candidate.opponent,
        judged_generation=candidate.generation,
        partition=work.key,
    )
    log.info(
        "%s: model %d of %s is champion (generation %d)",
        name,
        model.version,
        work.key,
        route.generation,
    )
    if not _wait(lambda: _served(work.records, route), SERVED_SECONDS):
        log.warning("%s: no node reports yet that it serves model %d", name, model.version)
    return _done(model, route)


def _await_nodes(work: Work, seconds: float) -> None:
    """Wait for the nodes' answer, saying at once for what; where no node gives a sign of life
    there is no answer to wait for.
    """
    found = observed(work)
    if found.state != "waiting":
        return
    log.warning("%s %s: %s; waiting", work.use_case.name, work.key, found.reason)
    if not work.records.nodes.of(work.use_case.name):
        _wait(lambda: bool(work.records.nodes.of(work.use_case.name)), min(seconds, NODE_SECONDS))
    if work.records.nodes.of(work.use_case.name):
        _wait(lambda: observed(work).state != "waiting", seconds)


def _judged(work: Work, model: Model) -> Candidate:
    """Return the candidate as the partition's verdict has it, or as the digest's first live
    judgement has it.
    """
    evaluation = work.result("evaluate_model")
    outputs = evaluation.outputs if evaluation is not None else {}
    if "opponent" in outputs and outputs.get("generation") is not None:
        return Candidate(model, outputs["opponent"], int(outputs["generation"]))
    recorded = work.records.opponents.get(work.use_case.name, model.model_digest, mode="live")
    if recorded is None:
        raise Conflict(
            f"{work.use_case.name} {work.key}: model {model.version} was never judged live; run "
            "its evaluation again"
        )
    return Candidate(model, recorded.version, recorded.generation)


def _released_before(work: Work, model: Model) -> bool:
    mine = work.result(NAME)
    return (
        mine is not None and mine.state == "done" and mine.outputs.get("released") == model.version
    )


def _last_good(work: Work, route: Route) -> int | None:
    """Return the champion that is replaced, unless it is on hold; then the one that was good
    before it.
    """
    champion = (
        work.records.models.get(work.use_case.name, route.champion)
        if route.champion is not None
        else None
    )
    if champion is None or champion.model_digest in route.held:
        return route.previous
    return champion.version


def _withdraw(work: Work, candidate: Candidate, route: Route, reason: str) -> None:
    if route.challenger is None:
        return
    work.records.routes.change(
        work.use_case.name,
        set={"challenger": None, "step": 0, "weight": 0.0},
        entry=_entry(work, "release.withdrawn", candidate.model, {"reason": reason}),
        expect_generation=route.generation,
    )


def _served(records: Records, route: Route) -> bool:
    return any(
        report.generation >= route.generation and report.detail.get("champion") == route.champion
        for report in records.nodes.of(route.use_case)
    )


def _wait(there: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _done(model: Model, route: Route, reason: str = "") -> Outcome:
    outputs = {
        "champion": route.champion,
        "generation": route.generation,
        "version": model.version,
        "released": model.version,
    }
    return Outcome("done", model.model_digest, reason, outputs=outputs)


def _nothing(state: Literal["skipped", "held"], reason: str) -> Outcome:
    return Outcome(state, _WITHOUT_MODEL, reason)


def _entry(work: Work, action: str, model: Model, details: dict[str, Any]) -> AuditEntry:
    content = {
        "partition": work.key,
        "model_digest": model.model_digest,
        "bento_tag": model.bento_tag,
        **details,
    }
    return AuditEntry(
        action, work.use_case.name, str(model.version), work.actor, content, work.started
    )


def _named(version: int | None) -> str:
    return "nobody" if version is None else f"model {version}"


STAGE = Stage(
    name=NAME,
    fields=FIELDS,
    libraries=LIBRARIES,
    reads=reads,
    compute=compute,
    effects=effects,
    memoised=False,  # the routing row is looked at every time
)
