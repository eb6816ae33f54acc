"""The doctor as a whole: one check that fails or hangs hides no other, and nothing is written."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from include.cli.app import app
from include.clock import utc_now
from include.config.settings import Settings
from include.doctor.examine import examine
from include.doctor.findings import Finding, Patient, first_line, public
from include.records.records import Records
from tests.builders.ports import free_ports
from tests.builders.stopwatch import Stopwatch

FINE = Finding("fine", "thing", "ok", "as it should be")


def fine(patient: Patient) -> Iterator[Finding]:
    yield FINE


def own_ports() -> dict[str, int]:
    """Give ports on which nothing runs; an installation may be up on the usual ones."""
    names = ("airflow_port", "mlflow_port", "node_port")
    return dict(zip(names, free_ports(3), strict=True))


def patient(home: Path, **settings: Any) -> Patient:
    return Patient(Settings(home=home, **(own_ports() | settings)), utc_now, seconds=60)


def test_a_check_that_fails_or_hangs_hides_no_other(tmp_path: Path) -> None:
    released = threading.Event()

    def failing(patient: Patient) -> Iterator[Finding]:
        yield FINE
        raise RuntimeError("at postgresql://user:secret@host/db?sslpassword=also")

    def hanging(patient: Patient) -> Iterator[Finding]:
        yield FINE
        released.wait(60)

    looked = Patient(Settings(home=tmp_path), utc_now, seconds=3)
    stopwatch = Stopwatch()
    found = examine(looked, {"failing": failing, "hanging": hanging, "fine": fine})
    released.set()
    assert stopwatch.seconds < 10
    assert [(one.subject, one.verdict) for one in found] == [
        ("fine", "ok"),
        ("failing", "fail"),
        ("fine", "ok"),
        ("hanging", "fail"),
        ("fine", "ok"),
    ]
    assert found[1].found == "RuntimeError: at postgresql://host/db"
    assert found[3].found == "no answer within 3 s"
    assert found[3].remedy


def test_all_are_asked_side_by_side(tmp_path: Path) -> None:
    def slow(patient: Patient) -> Iterator[Finding]:
        time.sleep(1.0)
        yield FINE

    stopwatch = Stopwatch()
    found = examine(patient(tmp_path), dict.fromkeys("abcdefgh", slow))
    assert len(found) == 8
    assert stopwatch.seconds < 5


def test_an_address_is_told_without_user_password_and_query() -> None:
    assert public("see redis://:pass@h:1/0?token=x, then") == "see redis://h:1/0 then"
    assert first_line(ValueError("https://a:b@c/d\nmore")) == "ValueError: https://c/d"
    assert first_line(ValueError()) == "ValueError"


def test_what_a_store_says_is_found_without_its_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-key-of-the-store")
    error = OSError("PUT /bucket/x?X-Amz-Signature=abc refused for s3cret-key-of-the-store")
    assert first_line(error) == "OSError: PUT /bucket/x refused for ***"


def tree(home: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in home.rglob("*")
        if path.suffix not in (".db-shm", ".db-wal")
    }


def test_it_writes_nothing_and_makes_no_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert {one.verdict for one in examine(patient(home))} <= {"ok", "warn"}
    assert not home.exists()
    settings = Settings(home=home)
    settings.make_home()
    Records.open(settings.records_address).migrate()
    before = tree(home)
    found = examine(patient(home))
    assert tree(home) == before
    told = {(one.subject, one.thing): one for one in found}
    assert told["records", "migrations"].verdict == "ok"
    assert told["audit log", "chain"].verdict == "ok"
    assert told["records", "epoch"].found.startswith("1,")


def run(monkeypatch: pytest.MonkeyPatch, home: Path, *options: str, **settings: str) -> Any:
    from include.config.settings import settings as current

    monkeypatch.setenv("EVERGREEN_HOME", str(home))
    ports = {name: str(port) for name, port in own_ports().items()}
    for name, value in (ports | settings).items():
        monkeypatch.setenv(f"EVERGREEN_{name.upper()}", value)
    current.cache_clear()
    try:
        return CliRunner().invoke(app, ["doctor", "--seconds", "5", *options])
    finally:
        current.cache_clear()


def test_the_command_ends_with_0_or_1_and_tells_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(monkeypatch, tmp_path / "home")
    assert done.exit_code == 0, done.output
    assert "0 failed" in done.output
    (tmp_path / "home").mkdir(mode=0o755)
    done = run(monkeypatch, tmp_path / "home", "--json")
    assert done.exit_code == 1
    (bad,) = [one for one in json.loads(done.stdout) if one["verdict"] == "fail"]
    assert (bad["subject"], bad["thing"]) == ("this machine", "home")
    assert bad["remedy"] == f"chmod 700 {tmp_path}/home"


def test_no_secret_of_a_setting_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "correct-horse-battery-staple"
    addresses = {
        "records_url": f"postgresql://one:{secret}@127.0.0.1:1/evergreen?sslpassword={secret}",
        "mlflow_uri": f"http://two:{secret}@127.0.0.1:1/path?token={secret}",
        "online_url": f"redis://three:{secret}@127.0.0.1:1/0",
        "segments_uri": f"s3://bucket/segments?key={secret}",
        "node_token": secret * 2,
    }
    for options in ((), ("--json",)):
        done = run(monkeypatch, tmp_path, *options, **addresses)
        assert done.exit_code == 1
        assert secret not in done.output
        assert "127.0.0.1:1" in done.output


def test_a_setting_that_is_wrong_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(monkeypatch, tmp_path, "--json", parallelism="none")
    assert done.exit_code == 1
    (only,) = json.loads(done.stdout)
    assert (only["subject"], only["verdict"]) == ("settings", "fail")
    assert "EVERGREEN_PARALLELISM" in only["found"]
