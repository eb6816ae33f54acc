"""Thirty champions one after the other at a really started node that is asked without a pause."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.benchmarks.serving_load import Load, drive
from tests.builders.serving import NAME, NOW, ROW, Desk, until

SWAPS, CONNECTIONS = 30, 64


@pytest.mark.slow
def test_thirty_swaps_under_load_fail_no_request(tmp_path: Path) -> None:
    """Three models in turn: each comes back after its memory was freed, and is tried anew."""
    desk = Desk(tmp_path / "home")
    desk.publish(dict.fromkeys(range(20), (NOW, ROW)))
    for version in (1, 2, 3):
        desk.train(version)
    desk.record_route(champion=1)
    bodies = [json.dumps({"entity": number}).encode() for number in range(20)]
    bodies += [json.dumps({"features": {**ROW, "jobs": number}}).encode() for number in range(20)]
    bodies += [b'{"entity": 1, "features": {"income": 1.0}}']  # goes the long way
    stop, loads = threading.Event(), list[Load]()
    with desk.node() as node:
        node.serves(1)
        assert node.process is not None
        pid, port, path = node.process.pid, desk.settings.node_port, f"/v1/{NAME}/predict"

        def ask() -> None:
            while not stop.is_set():
                load = drive(
                    pid, port, path, bodies, connections=CONNECTIONS, seconds=2, folder=tmp_path
                )
                loads.append(load)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            for number in range(SWAPS):
                version, before = (number + 1) % 3 + 1, number % 3 + 1
                desk.record_route(champion=version, previous=before)
                until(
                    lambda version=version: node.health.get("model_version") == version,  # type: ignore[misc]
                    what=f"model {version}",
                    seconds=60,
                )
        finally:
            stop.set()
            asking.join()
        text = node.get("/metrics").body
    assert sum(load.failed for load in loads) == 0
    assert sum(load.rate for load in loads) > 0
    assert 'status="5' not in text
    assert 'event="direct_failed"' not in text
