"""The event of a release's end: one, whoever emits it, and whoever dies before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import Settings
from include.orchestration import announcing
from include.orchestration.announcing import announce_missed, is_to_announce
from include.pipeline.flow import asset_uri
from include.records.records import Records, Release
from tests.builders.airflow_server import AirflowServer, airflow_server
from tests.builders.ports import free_ports
from tests.builders.releases import entry, request, under_way

KEY = "2026-01-02"
EVENTS = "/api/v2/assets/events"
NOW = timedelta(0)


class Airflow:
    """Keeps the events that it is given, and shows them."""

    def __init__(self, server: AirflowServer) -> None:
        self.server = server
        self.events: list[dict[str, Any]] = []
        uri = asset_uri("shop", "release_ended")
        assets = {"assets": [{"id": 7, "uri": uri}], "total_entries": 1}
        server.answers["GET", "/api/v2/assets"] = (200, assets)
        server.answers["GET", EVENTS] = lambda _: (
            200,
            {"asset_events": self.taken, "total_entries": len(self.taken)},
        )
        server.answers["POST", EVENTS] = (200, {})

    @property
    def taken(self) -> list[dict[str, Any]]:
        """All events: those of tasks, and those that came over the API."""
        return self.events + self.server.bodies


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path, airflow_port=free_ports(1)[0])
    Records.open(made.records_address).migrate()
    return made


@pytest.fixture
def records(home: Settings) -> Records:
    return Records.open(home.records_address)


@pytest.fixture
def airflow(home: Settings) -> Iterator[Airflow]:
    with airflow_server(home) as server:
        yield Airflow(server)


def aborted(records: Records) -> Release:
    return records.releases.abort(under_way(records, KEY), "a wish", entry("release.aborted"))


def test_an_end_that_no_run_saw_is_announced_once(
    home: Settings, records: Records, airflow: Airflow
) -> None:
    release = aborted(records)
    assert announce_missed(home, "shop", hand="one", own=NOW) == [release.id]
    [event] = airflow.taken
    assert (event["asset_id"], event["partition_key"]) == (7, KEY)
    extra = event["extra"]
    assert (extra["end"], extra["by"], extra["reason"]) == ("aborted", "test", "a wish")
    assert (extra["release"], extra["state"], extra["causes"]) == (release.id, "aborted", [])
    assert announce_missed(home, "shop", hand="two", own=NOW) == []
    assert not is_to_announce(home, records, release, "its run")


def test_a_young_end_is_left_to_its_run_and_one_that_waited_has_none(
    home: Settings, records: Records, airflow: Airflow
) -> None:
    release = under_way(records, KEY)
    for version, key in ((3, "2026-01-03"), (4, "2026-01-04")):
        request(records, version, key, waits=True)
    records.releases.abort(release, "a wish", entry("release.aborted"))
    announce_missed(home, "shop", hand="another run")
    assert [one["extra"]["end"] for one in airflow.taken] == ["superseded"]
    assert is_to_announce(home, records, newest_of(records, 2), "its run")


def test_of_a_task_and_another_hand_one_announces(
    home: Settings, records: Records, airflow: Airflow
) -> None:
    release = aborted(records)
    assert is_to_announce(home, records, release, "its run")
    assert announce_missed(home, "shop", hand="heal", own=NOW) == []
    assert is_to_announce(home, records, release, "its run"), "its try was killed: it goes on"
    airflow.events.append({"extra": {"release": release.id, "state": "aborted"}})
    assert not is_to_announce(home, records, release, "its run"), "the task was cleared"
    assert airflow.server.bodies == []


def test_what_a_dead_hand_was_to_announce_the_next_one_does(
    home: Settings, records: Records, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = aborted(records)
    assert is_to_announce(home, records, release, "a run that was killed and lost")
    assert announce_missed(home, "shop", hand="heal", own=NOW) == []
    monkeypatch.setattr(announcing, "CLAIM", NOW)
    assert announce_missed(home, "shop", hand="heal", own=NOW) == [release.id]
    assert announce_missed(home, "shop", hand="heal", own=NOW) == []
    assert len(airflow.taken) == 1


def test_what_the_version_before_has_announced_is_not_announced_again(
    home: Settings, records: Records, airflow: Airflow
) -> None:
    release = aborted(records)
    airflow.events.append({"extra": {"release": release.id, "state": "aborted"}})
    assert announce_missed(home, "shop", hand="heal", own=NOW) == []
    assert airflow.server.bodies == []


def test_airflow_that_is_away_is_logged_and_asked_by_the_next_hand(
    home: Settings, records: Records
) -> None:
    release = aborted(records)
    assert announce_missed(home, "shop", hand="one", own=NOW) == []
    with airflow_server(home) as server:
        Airflow(server)
        assert announce_missed(home, "shop", hand="two", own=NOW) == [release.id]


def newest_of(records: Records, version: int) -> Release:
    return next(one for one in records.releases.of("shop") if one.challenger == version)
