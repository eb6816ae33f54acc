"""Cases in which a part of the system ends, hangs or is away."""

from __future__ import annotations

import signal
import time

from tests.builders.serving import NAME, until
from tests.drill.clinic import FIRST, FULL, LONG_LAST
from tests.drill.stack import Stack


def store_away(stack: Stack) -> str:
    stack.release()
    stack.until_step(FIRST)
    stack.harm()
    stack.store.kill()
    time.sleep(6.0)
    release = stack.newest
    assert release is not None
    assert release.state == "running", f"{release.state} ({release.reason}) while the store is away"
    stack.store.start()
    stack.publish()
    return stack.until_ended()


def judge_back(stack: Stack) -> str:
    version = stack.release()
    stack.until_step(FULL)
    stack.harm()
    with stack.without_judge():
        stack.until_without(version)
    ended = stack.until_ended()
    release = stack.newest
    assert release is not None
    assert release.gap_seconds > 0, "the gap is not recorded"
    return ended


def judge_late(stack: Stack) -> str:
    version = stack.release()
    stack.until_step(FULL)
    stack.harm()
    with stack.without_judge():
        stack.until_without(version)
        time.sleep(30.0)  # with the beat that ran out, longer than `resume`
    ended = stack.until_ended()
    release = stack.newest
    assert release is not None
    assert "away" in release.reason, release.reason
    return ended


def restart_without_beat(stack: Stack) -> str:
    """A node that starts while the judge is away gives the challenger nothing at all."""
    version = stack.release()
    stack.until_step(FULL)
    stack.harm()
    with stack.without_judge():
        node = stack.nodes[0]
        node.stop(signal.SIGTERM)
        node.start()
        answered = [node.predict(entity=entity).body for entity in range(200)]
        assert version not in {one.get("model_version") for one in answered}
        assert {one.get("arm") for one in answered} == {"champion"}
    return stack.until_ended()


def two_judges(stack: Stack) -> str:
    """Two take turns at one release: each move happens once."""
    version = stack.release()
    first = stack.judge
    stack.judge = None
    stack.start_judge()
    try:
        ended = stack.until_ended()
    finally:
        if first is not None:
            first.kill()
            first.wait()
    moves = [
        entry.action
        for entry in stack.desk.records.audit.entries(NAME)
        if entry.subject == str(version) and entry.details.get("generation")
    ]
    assert len(moves) == len(set(moves)) + 1, f"not each once, the two steps apart: {moves}"
    return ended


def records_stopped(stack: Stack) -> str:
    """The champion is taken back on one node while nobody can record it."""
    before = stack.desk.records.routes.get(NAME)
    version = stack.release()
    stack.until_step(FULL)
    stack.harm()
    stack.records_server.stop("immediate")
    stack.until_without(version)
    node = stack.nodes[0]
    order = {"reason": "drill", "version": before.champion, "request_id": f"drill-{version}"}
    answer = node.post(f"/v1/{NAME}/rollback", json=order, headers=node.token)
    assert answer.status == 200, answer
    assert answer.body["scope"] == "this node only", answer.body
    assert node.health.get("model_version") == before.previous
    stack.records_server.start()
    ended = stack.until_ended()
    until(
        lambda: stack.answering == [before.previous, before.previous],
        what="both nodes on the model before",
    )
    route = stack.desk.records.routes.get(NAME)
    assert (route.champion, route.challenger, route.share) == (before.previous, None, 0)
    return ended


def guard_alone(stack: Stack) -> str:
    """The challenger answers NaN while nobody can judge: the nodes take its traffic home.

    It is well again before the judge's beat runs out, and gets nothing all the same; once the
    records are back, it ends for all.
    """
    stack.change_plan(steps=LONG_LAST)
    version = stack.release()
    stack.until_step(FULL)
    patient = stack.desk.patients[version]
    stack.harm()
    stack.records_server.stop("immediate")
    patient.sicken("nan")
    time.sleep(5.0)
    patient.cure()
    stack.traffic.answered_by(version)
    time.sleep(2.0)
    answered = stack.traffic.answered_by(version)
    stack.records_server.start()
    assert answered == 0, f"it answered {answered} requests after 5 s of NaN"
    ended = stack.until_ended()
    release = stack.newest
    assert release is not None
    assert "guard" in release.reason, release.reason
    return ended


def records_restarted(stack: Stack) -> str:
    stack.release()
    stack.until_step(FIRST)
    stack.harm()
    stack.records_server.stop("immediate")
    time.sleep(4.0)
    stack.records_server.start()
    return stack.until_ended()


def node_restarted(stack: Stack) -> str:
    stack.release()
    stack.until_step(FULL)
    node = stack.nodes[0]
    stack.harm()
    node.stop(signal.SIGTERM)
    node.start()
    return stack.until_ended()


def node_dead(stack: Stack) -> str:
    """Kill the second node for good; it is started again once the release has ended."""
    stack.release()
    stack.until_step(FULL)
    stack.harm()
    stack.nodes[1].stop(signal.SIGKILL)
    try:
        return stack.until_ended(seconds=180)
    finally:
        stack.nodes[1].start()


def restarts(stack: Stack) -> str:
    """A node ends uncleanly twice within a step, which is a fail.

    In between it takes part in the step for long enough to have said so in the records.
    """
    stack.change_plan(steps=LONG_LAST)
    stack.release()
    stack.until_step(FULL)
    node = stack.nodes[0]
    stack.harm()
    for _ in range(2):
        node.stop(signal.SIGKILL)
        node.start()
        time.sleep(12.0)
    return stack.until_ended()
