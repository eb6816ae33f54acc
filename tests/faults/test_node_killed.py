"""A supervised node that is killed under load: nothing is lost but what it had in hand."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from include.installation.supervisor import Supervisor
from tests.builders.asking import asking
from tests.builders.ports import free_ports
from tests.builders.serving import NOW, ROW, Desk, Node, until

KILLS = 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_node_had_not_begun_to_read_is_answered_by_the_next(
    tmp_path: Path, number: signal.Signals
) -> None:
    """None is refused, and none is told that the node only starts. SIGTERM loses nothing at all."""
    desk = Desk(tmp_path)
    desk.publish({1: (NOW, ROW)})
    desk.train(1)
    desk.record_route(champion=1)
    ports = free_ports(3)
    names = ("airflow_port", "mlflow_port", "node_port")
    settings = desk.settings.model_copy(update=dict(zip(names, ports, strict=True)))
    with Supervisor(settings, say=lambda text: None, services=("node",)) as supervisor:
        supervisor.start()
        supervisor.wait_healthy()
        Node(settings).serves(1)
        (node,) = supervisor._children
        with asking(settings.node_port) as load:
            for _ in range(KILLS):
                asked = len(load.answered)
                until(lambda asked=asked: len(load.answered) > asked + 20, what="answers")  # type: ignore[misc]
                assert node.born is not None
                before = node.born
                os.kill(before.pid, number)
                until(lambda before=before: node.born not in (None, before), what="the next one")  # type: ignore[misc]
            asked = len(load.answered)
            until(lambda: len(load.answered) > asked + 20, what="answers of the last")
    # Of each kill a connection loses one at most: what was being read of it, or what came on it
    # next, before it was known to be dead.
    connections = 2
    assert len(load.failed) <= (connections * KILLS if number == signal.SIGKILL else 0)
    assert [one for one in load.failed if "Refused" in one or one[:1].isdigit()] == []
