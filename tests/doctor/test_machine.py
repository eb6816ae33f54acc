"""What the doctor says of this machine: an open home, secrets that others read, open ports."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.doctor import machine, servers, use_cases
from include.doctor.findings import Finding, Patient
from include.processes import bare_environment
from tests.builders.ports import free_port, free_ports
from tests.builders.shut_files import run_plainly, shut


def examined(
    check: Callable[[Patient], Iterator[Finding]], home: Path, **settings: Any
) -> dict[str, Finding]:
    patient = Patient(Settings(home=home, **settings), utc_now, seconds=60)
    return {one.thing: one for one in check(patient)}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    settings = Settings(home=tmp_path / "home")
    settings.make_home()
    settings.secret("node_token")
    return settings.home


@pytest.mark.parametrize(
    ("mode", "who"), [(0o600, ""), (0o400, ""), (0o640, "its group"), (0o604, "everybody")]
)
def test_a_secret_that_others_read_is_told_with_the_command_that_mends_it(
    home: Path, mode: int, who: str
) -> None:
    path = home / "secrets" / "node_token"
    path.chmod(mode)
    found = examined(machine.examine_secrets, home)
    if not who:
        assert found["files"].found == "1 that their owner alone reads"
    else:
        assert found["node_token"].verdict == "fail"
        assert who in found["node_token"].found
        assert found["node_token"].remedy == f"chmod 600 {path}"


def test_the_folder_of_secret_files_is_looked_at_too(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "secrets"
    folder.mkdir(parents=True)
    (folder / "evergreen_broker_url").write_text("redis://127.0.0.1:1/0")
    (folder / "evergreen_broker_url").chmod(0o444)
    found = examined(machine.examine_secrets, home, secrets_dir=folder)
    assert found["evergreen_broker_url"].verdict == "fail"
    (folder / "evergreen_broker_url").chmod(0o400)
    found = examined(machine.examine_secrets, home, secrets_dir=folder)
    assert {one.verdict for one in found.values()} == {"ok"}


def test_a_secret_that_this_process_cannot_read_is_told(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("airflow_fernet", "node_token"):
        (folder / f"evergreen_{name}").write_text("x" * 43)
        (folder / f"evergreen_{name}").chmod(0o400)
    shut(folder / "evergreen_airflow_fernet")
    script = (
        "from include.doctor import machine; from include.doctor.findings import Patient\n"
        "from include.config.settings import settings\n"
        "for one in machine.examine_secrets(Patient(settings(), None)):\n"
        "    print(one.thing, one.verdict, one.found, one.remedy)"
    )
    environment = bare_environment(EVERGREEN_HOME=str(home), EVERGREEN_SECRETS_DIR=str(folder))
    name = "evergreen_airflow_fernet"
    told = run_plainly([sys.executable, "-c", script], environment).stdout.splitlines()
    assert told[0].startswith(f"{name} fail {folder / name} cannot be read by user")
    assert f"chown {os.getuid()} FILE" in told[0]
    assert told[1].startswith("files ok 2 that their owner alone reads")


def test_a_file_of_credentials_of_a_store_is_read(home: Path, tmp_path: Path) -> None:
    (tmp_path / "store.env").write_text("hunter2")
    (tmp_path / "store.env").chmod(0o400)
    found = examined(machine.examine_secrets, home, secrets_dir=tmp_path)["store.env"]
    assert found.verdict == "fail"
    assert "line 1, is no NAME=VALUE" in found.found
    assert "hunter2" not in found.found


def test_a_home_that_others_can_open_is_told(home: Path) -> None:
    assert examined(machine.examine, home)["home"].verdict == "ok"
    home.chmod(0o750)
    found = examined(machine.examine, home)["home"]
    assert (found.verdict, found.remedy) == ("fail", f"chmod 700 {home}")


def test_a_home_of_another_layout_is_told(home: Path) -> None:
    (home / "VERSION").write_text('{"layout": 99}')
    found = examined(machine.examine, home)["layout"]
    assert (found.verdict, "layout 99" in found.found) == ("fail", True)


def test_more_memory_than_there_is_is_told(home: Path) -> None:
    assert examined(machine.examine, home, memory="9TB")["memory"].verdict == "warn"


def node_settings() -> dict[str, Any]:
    names = ("node_port", "mlflow_port", "airflow_port")
    return dict(zip(names, free_ports(3), strict=True))


@pytest.mark.parametrize(("host", "verdict"), [("127.0.0.1", "fail"), ("0.0.0.0", "warn")])
def test_a_port_that_other_machines_reach_is_told(home: Path, host: str, verdict: str) -> None:
    settings = node_settings()
    assert examined(servers.examine_serving, home, **settings)["ports"].verdict == "ok"
    with socket.create_server(("0.0.0.0", settings["mlflow_port"])):
        found = examined(servers.examine_serving, home, host=host, **settings)["ports"]
    assert found.verdict == verdict
    assert str(settings["mlflow_port"]) in found.found


def test_a_node_that_answers_without_a_token_to_everybody_is_told(home: Path) -> None:
    settings = node_settings()
    found = examined(servers.examine_serving, home, host="0.0.0.0", predict="open", **settings)
    assert found["tokens"].verdict in ("ok", "warn")
    patient = Patient(
        Settings(home=home, host="0.0.0.0", predict="open", **settings), utc_now, seconds=60
    )
    assert any(
        "without a token" in one.found and one.verdict == "warn"
        for one in servers.examine_serving(patient)
    )


def test_a_file_of_tokens_that_cannot_be_read_is_told(home: Path) -> None:
    (home / "secrets" / "tokens").write_text("shop predict short\n")
    found = examined(servers.examine_serving, home, **node_settings())["tokens"]
    assert found.verdict == "fail"
    assert "short" not in found.found.replace("too short", "")


def test_servers_that_are_not_started_are_no_failure(home: Path) -> None:
    found = examined(servers.examine_airflow, home, airflow_port=free_port())
    assert found["reachable"].verdict == "warn"


def test_a_use_case_that_cannot_be_read_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    from include.config.settings import ROOT

    folder = tmp_path / "usecases"
    folder.mkdir()
    shipped = ROOT / "include" / "usecases" / "repayment.yaml"
    (folder / "repayment.yaml").write_text(shipped.read_text())
    (folder / "broken.yaml").write_text("name: broken\nentity: 3\n")
    found = examined(use_cases.examine, tmp_path / "home", usecases=str(folder))
    assert found["broken"].verdict == "fail"
    assert found["files"].found == "repayment"
    found = examined(use_cases.examine, tmp_path / "home", usecases=str(tmp_path / "nothing"))
    assert found["folders"].verdict == "fail"


def test_every_node_that_the_settings_name_is_asked(home: Path) -> None:
    ports = free_ports(2)
    urls = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    patient = Patient(Settings(home=home, node_urls=urls), utc_now, seconds=60)
    told = [one for one in servers.examine_serving(patient) if one.thing == "reachable"]
    assert [one.verdict for one in told] == ["warn", "warn"]
    assert [str(port) in one.found for one, port in zip(told, ports, strict=True)] == [True] * 2
