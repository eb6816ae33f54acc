"""A real node in the middle of a release, all of whose requests are the challenger's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from include.serving.assignment import WHOLE
from tests.benchmarks.serving_desk import WideDesk
from tests.builders.releasing import Releasing
from tests.builders.serving import NAME, until


@contextlib.contextmanager
def node_in_release(folder: Path) -> Iterator[tuple[int, int, str]]:
    """Run the node; give its process, its port and the path that is asked."""
    desk = WideDesk(folder)
    desk.publish_rows()
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=1)
    with desk.node() as node:
        node.serves(1)
        releasing = Releasing(desk, 2, WHOLE)
        until(
            lambda: node.health["roles"].get("challenger", {}).get("state") == "ready",
            what="challenger",
            seconds=120,
        )
        releasing.begin()
        releasing.beat(86_400)
        until(lambda: node.health.get("release", {}).get("share") == 100, what="share")
        assert node.process is not None
        yield node.process.pid, desk.settings.node_port, f"/v1/{NAME}/predict"
        assert node.predict(entity=1).body["arm"] == "challenger", "it was not asked to the end"
