"""The end of the shared installation, and a second start of it; conftest.py runs this file last."""

from __future__ import annotations

import json

import psutil

from include.installation.supervisor import stop
from tests.e2e.conftest import Installation, session_of


def test_stop_ends_everything_and_a_second_start_finds_what_is_there(
    installation: Installation,
) -> None:
    before, models = installation.live_state("visits"), installation.records.models.of("visits")
    state = json.loads((installation.settings.home / "run" / "supervisor.json").read_text())
    sessions = {session["pid"] for session in state["sessions"]}
    assert "all that it had started" in stop(installation.settings)
    assert installation.process.wait(timeout=30) == 0
    assert not [pid for pid in psutil.pids() if session_of(pid) in sessions]

    again = installation.start("--once")
    assert again.wait(timeout=120) == 0, installation.said
    second = installation.said.rpartition("starting Evergreen")[2]
    assert "is on record: done; model 1 is champion" in second
    assert "loading the history" not in second
    assert "password" not in second, "it is shown on the first start only"
    assert installation.live_state("visits") == before
    assert installation.records.models.of("visits") == models
