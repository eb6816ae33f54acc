"""The cases of the drill: what is done to a running system, and the end that the rules state.

Each case plays on the system that the one before has left: a champion answers, traffic comes, no
release is on its way. A case returns what it saw beside the end of its release; it fails by an
assertion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from include.errors import ConfigError
from tests.builders.serving import NAME, until
from tests.drill import outages, rules, sickness
from tests.drill.clinic import FIRST
from tests.drill.stack import Stack

Part = Literal["records", "store"]


@dataclass(frozen=True)
class Case:
    """One case; `stated` is the end that the rules state, `needs` the servers that it breaks.

    `within` is how many seconds the rules, or the plan, leave from the harm until the end.
    """

    name: str
    happens: str
    stated: str
    play: Callable[[Stack], str]
    within: float = 90.0
    needs: tuple[Part, ...] = ()
    is_short: bool = False  # part of the short form


def first(stack: Stack) -> str:
    version = stack.release()
    ended = stack.until_ended()
    for node in stack.nodes:
        node.serves(version)
    return ended


def healthy(stack: Stack) -> str:
    version = stack.release()
    stack.until_step(FIRST)
    ended = stack.until_ended()
    until(lambda: stack.answering == [version, version], what=f"model {version}")
    return ended


def thin(stack: Stack) -> str:
    stack.change_plan(
        thin="replay",
        steps="[{share: 0, bake: 1s, requests: 900000, entities: 20, deadline: 60s}, "
        "{share: 25, bake: 1s, requests: 900000, entities: 20, deadline: 60s}]",
    )
    stack.release()
    ended = stack.until_ended()
    promoted = stack.desk.records.audit.entries(NAME, action="release.promoted")[-1]
    assert promoted.subject == str(stack.version)
    assert "thin traffic" in promoted.details["how"], promoted.details
    return ended


CASES = (
    Case("first release", "no champion yet", "promoted", first, is_short=True),
    Case("thin traffic", "no step can reach its minimum: replay", "promoted", thin),
    Case("healthy", "an equal model", "promoted", healthy, is_short=True),
    Case("slow", "100 ms an answer at 25 %", "rolled back", sickness.sicken("slow", seconds=0.1)),
    Case(
        "errors",
        "a third fails at 25 %",
        "rolled back",
        sickness.sicken("errors", share=0.3),
        is_short=True,
    ),
    Case("shifted", "scores moved by 0.8 log-odds", "rolled back", sickness.shifted),
    Case("killed", "SIGKILL whenever it runs", "rolled back", sickness.killed, within=30),
    Case("stopped", "SIGSTOP at 25 %", "rolled back", sickness.stopped, within=30),
    Case("nan", "answers NaN at 25 %", "rolled back", sickness.sicken("nan"), within=30),
    Case("sick champion", "half of its answers slow", "promoted", sickness.sick_champion),
    Case(
        "store away",
        "Redis killed for 6 s at 5 %",
        "promoted",
        outages.store_away,
        needs=("store",),
    ),
    Case("judge back", "killed at 25 %, back in time", "promoted", outages.judge_back),
    Case("judge late", "killed at 25 %, back too late", "aborted", outages.judge_late),
    Case(
        "records stopped",
        "a rollback meanwhile, then replayed",
        "aborted",
        outages.records_stopped,
        needs=("records",),
    ),
    Case(
        "guard alone",
        "NaN for 5 s while the records are away",
        "rolled back",
        outages.guard_alone,
        needs=("records",),
    ),
    Case("damaged", "a bundle with a changed byte", "aborted", rules.damaged),
    Case("unsigned", "by the stage, then by hand", "aborted", rules.unsigned),
    Case("key expired", "signed in time, then a node restarts", "refused", rules.key_expired),
    Case("key revoked", "the challenger's, at 25 %", "aborted", rules.key_revoked, within=30),
    Case("node restarted", "SIGTERM and start at 25 %", "promoted", outages.node_restarted),
    Case("node dead", "SIGKILL of the second node", "promoted", outages.node_dead, within=180),
    Case("no beat", "a node restarts without a judge", "promoted", outages.restart_without_beat),
    Case("two judges", "two at one release", "promoted", outages.two_judges),
    Case("sticky", "who is in whose share, on both nodes", "promoted", rules.sticky),
    Case("two kills", "a node, SIGKILL twice in a step", "rolled back", outages.restarts),
    Case("watched", "the champion fails after 100 %", "rolled back", sickness.watched, within=120),
    Case("newer waits", "a second candidate meanwhile", "promoted", rules.newer_waits),
    Case("frozen", "asked for in a freeze, then after it", "promoted", rules.frozen),
    Case(
        "records restarted",
        "away for 4 s at 5 %",
        "promoted",
        outages.records_restarted,
        needs=("records",),
    ),
    Case("held again", "a digest on hold comes again", "rolled back", rules.held_again),
    Case("aborted again", "the digest starts anew", "promoted", rules.aborted_again),
)


def chosen(names: Sequence[str], *, short: bool) -> list[Case]:
    """Return the cases of these names, all where none is named; the first release goes before.

    Raises:
        ConfigError: there is no case of a name.
    """
    wanted = {name.strip() for name in names}
    if unknown := sorted(wanted - {case.name for case in CASES}):
        raise ConfigError(
            f"no case {', '.join(unknown)}; there are {', '.join(case.name for case in CASES)}"
        )
    return [
        case
        for case in CASES
        if case is CASES[0] or (case.name in wanted if wanted else case.is_short or not short)
    ]
