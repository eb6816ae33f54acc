"""The end of the shared installation, and a second start of it; conftest.py runs this file last."""

from __future__ import annotations

import json
import re

import psutil

from include.installation.supervisor import stop
from tests.e2e.conftest import session_of
from tests.e2e.installations import Embedded


def test_stop_ends_everything_and_a_second_start_finds_what_is_there(
    embedded: Embedded,
) -> None:
    before, models = embedded.live_state("visits"), embedded.records.models.of("visits")
    state = json.loads((embedded.settings.home / "run" / "supervisor.json").read_text())
    sessions = {session["pid"] for session in state["sessions"]}
    assert "all that it had started" in stop(embedded.settings)
    assert embedded.process.wait(timeout=30) == 0
    assert not [pid for pid in psutil.pids() if session_of(pid) in sessions]

    again = embedded.start("--once")
    assert again.wait(timeout=120) == 0, embedded.said
    second = embedded.said.rpartition("starting Evergreen")[2]
    champion = embedded.records.routes.get("visits").champion
    assert "is on record: " in second
    assert re.search(rf"model_version +{champion}\b", second)
    assert "loading the history" not in second
    assert "password" not in second, "it is shown on the first start only"
    assert embedded.live_state("visits") == before
    assert embedded.records.models.of("visits") == models
