"""What the doctor says of Redis: one that evicts, is away, is full, or hides behind a password."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from include.clock import utc_now
from include.config.settings import Settings
from include.doctor import online
from include.doctor.findings import Finding, Patient
from tests.builders.ports import free_port
from tests.builders.redis_server import own_server


def examined(home: Path, url: str, *, skew: float = 0.0) -> dict[str, Finding]:
    patient = Patient(
        Settings(home=home, online_url=url), lambda: utc_now() - timedelta(seconds=skew), seconds=60
    )
    return {one.thing: one for one in online.examine(patient)}


def test_a_redis_that_is_well_is_told(tmp_path: Path) -> None:
    with own_server(tmp_path) as server:
        found = examined(tmp_path, server.url)
        assert {one.verdict for one in found.values()} == {"ok"}
        assert found["reachable"].found.startswith("Redis ")
        assert examined(tmp_path, server.url, skew=30)["clock"].verdict == "warn"


@pytest.mark.parametrize(("maxmemory", "verdict"), [("50mb", "fail"), ("0", "warn")])
def test_a_redis_that_evicts_is_told(tmp_path: Path, maxmemory: str, verdict: str) -> None:
    options = ("--maxmemory-policy", "allkeys-lru", "--maxmemory", maxmemory)
    with own_server(tmp_path, *options) as server:
        found = examined(tmp_path, server.url)["eviction"]
        assert found.verdict == verdict
        assert "allkeys-lru" in found.found
        assert "noeviction" in found.remedy


def test_a_redis_that_is_nearly_full_is_told(tmp_path: Path) -> None:
    with own_server(tmp_path, "--maxmemory", "20mb") as server:
        assert examined(tmp_path, server.url)["memory"].verdict == "ok"
        used = int(server.client.info("memory")["used_memory"])
        server.client.config_set("maxmemory", int(used / 0.9))
        assert examined(tmp_path, server.url)["memory"].verdict == "warn"


def test_a_redis_that_is_away_or_refuses_the_password_is_told_without_it(tmp_path: Path) -> None:
    (only,) = examined(tmp_path, f"redis://:hidden@127.0.0.1:{free_port()}/0").values()
    assert (only.verdict, "hidden" in only.found) == ("fail", False)
    assert "EVERGREEN_ONLINE_URL" in only.remedy
    with own_server(tmp_path) as server:
        server.client.config_set("requirepass", "another")
        url = server.url.replace("redis://", "redis://:hidden@")
        (only,) = examined(tmp_path, url).values()
        assert (only.verdict, "hidden" in only.found) == ("fail", False)
    (only,) = examined(tmp_path, "http://127.0.0.1").values()
    assert only.verdict == "fail"


def test_a_broker_is_looked_at_where_there_is_one(tmp_path: Path) -> None:
    assert list(online.examine_broker(Patient(Settings(home=tmp_path), utc_now))) == []
    with own_server(
        tmp_path, "--maxmemory-policy", "volatile-lru", "--maxmemory", "50mb"
    ) as server:
        settings = Settings(home=tmp_path, broker_url=SecretStr(server.url))
        found = {one.thing: one for one in online.examine_broker(Patient(settings, utc_now))}
    assert found["eviction"].verdict == "fail"
    assert found["eviction"].subject == "broker"


def test_without_redis_the_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "online").mkdir()
    (tmp_path / "online" / "loans.db").touch()
    assert "loans" in examined(tmp_path, "")["place"].found
