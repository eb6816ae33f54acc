"""The entry point of the image: which process a container becomes, and with which secrets."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from include.clock import utc_now
from include.config.settings import Settings, settings
from include.errors import ConfigError
from include.installation import container, health
from include.installation.container import variables_of
from include.installation.container_secrets import (
    GENERATED,
    PUBLIC_KEYS,
    SIGNING_KEY,
    WRITTEN,
    make_secrets,
)
from include.models.private_key import open_signer
from include.models.public_keys import REVOKED, read_keys


@pytest.fixture
def secrets_folder(tmp_path: Path) -> Path:
    make_secrets(tmp_path / "all", owner=os.getuid())
    return tmp_path / "all"


def become(
    monkeypatch: pytest.MonkeyPatch, home: Path, folder: Path, *words: str, **variables: str
) -> tuple[list[str], dict[str, str]]:
    """Return the command that an entry point becomes, and its environment."""
    became: list[Any] = []

    def execute(path: str, command: list[str], environment: dict[str, str]) -> None:
        became.extend((command, environment))

    monkeypatch.setattr(os, "execve", execute)
    variables |= {"EVERGREEN_HOME": str(home), "EVERGREEN_SECRETS_DIR": str(folder)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    try:
        container.main(words)
    finally:
        settings.cache_clear()
    return became[0], became[1]


def hand(folder: Path, target: Path, **files: str) -> Path:
    """Make the folder of secrets of one service, as compose mounts it."""
    target.mkdir()
    for name, source in files.items():
        (target / name).write_text((folder / source).read_text())
    return target


def test_secrets_are_made_once_and_for_one_user(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = set(make_secrets(folder, owner=os.getuid()))
    assert made == {*GENERATED, *WRITTEN, SIGNING_KEY}
    files = [path for path in folder.iterdir() if path.is_file()]
    texts = {path.name: path.read_text() for path in files}
    assert texts.keys() == made
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o400}
    assert len({texts[name] for name in GENERATED}) == len(GENERATED)
    (folder / "node_token").unlink()
    assert make_secrets(folder, owner=os.getuid()) == ["node_token"]
    del texts["node_token"]
    assert {name: (folder / name).read_text() for name in texts} == texts


def test_the_key_that_signs_has_its_public_half_in_the_folder_of_the_nodes(
    tmp_path: Path, secrets_folder: Path
) -> None:
    public = secrets_folder / PUBLIC_KEYS
    worker = Settings(
        home=tmp_path / "home",
        signing_key_file=secrets_folder / SIGNING_KEY,
        signing_keys=public,
    )
    signer = open_signer(worker, utc_now())
    assert {path.name for path in public.iterdir()} == {f"{signer.id}.json", REVOKED}
    (secrets_folder / SIGNING_KEY).unlink()
    assert make_secrets(secrets_folder, owner=os.getuid()) == [SIGNING_KEY]
    assert len(read_keys(public).keys) == 2, "what the one before has signed is loaded"


@pytest.mark.parametrize("held", ["", "short", "p@ss:" * 10])
def test_a_password_that_keeps_nobody_out_goes_into_no_file(tmp_path: Path, held: str) -> None:
    (tmp_path / "redis_features_password").write_text(held)
    with pytest.raises(ConfigError, match="redis_features_password") as refused:
        make_secrets(tmp_path, owner=os.getuid())
    assert not held or held not in str(refused.value)
    assert not (tmp_path / "redis_features.conf").exists()


def test_an_address_of_ones_own_database_stays_and_one_that_is_made_has_the_password(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "records_worker_url").write_text("postgresql://me@db.example.org/records")
    (folder / "node_password").write_text("p" * 43)
    make_secrets(folder, owner=os.getuid())
    assert (folder / "records_worker_url").read_text().endswith("example.org/records")
    made = (folder / "records_node_url").read_text()
    assert made == f"postgresql://evergreen_node:{'p' * 43}@postgres:5432/evergreen"


def test_a_node_gets_what_it_needs_and_no_other_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secrets_folder: Path
) -> None:
    own = hand(
        secrets_folder,
        tmp_path / "run",
        evergreen_records_url="records_node_url",
        evergreen_node_token="node_token",
        evergreen_entity_key="entity_key",
        evergreen_online_url="online_url",
    )
    command, environment = become(
        monkeypatch, tmp_path / "home", own, "node", SOME_PASSWORD="of the shell"
    )
    assert command[1:] == ["-m", "include", "serve"]
    assert environment["EVERGREEN_RECORDS_URL"] == (own / "evergreen_records_url").read_text()
    assert "SOME_PASSWORD" not in environment
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in environment


@pytest.mark.parametrize("address", ["", "https://hooks.example.org/abc"])
def test_who_is_told_of_releases_stands_in_a_file_that_is_made_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secrets_folder: Path, address: str
) -> None:
    assert (secrets_folder / "alert_url").read_text() == ""
    if address:
        (secrets_folder / "alert_url").chmod(0o600)
        (secrets_folder / "alert_url").write_text(f"{address}\n")
    names = ("airflow_fernet", "airflow_op", "airflow_database_url", "broker_url", "entity_key")
    own = hand(
        secrets_folder,
        tmp_path / "run",
        **{f"evergreen_{name}": name for name in (*names, "alert_url")},
    )
    variables = {"EVERGREEN_EXECUTOR": "celery"}
    for word in ("worker", "triggerer"):
        _, environment = become(monkeypatch, tmp_path / "home", own, word, **variables)
        assert environment.get("EVERGREEN_ALERT_URL", "") == address


def test_credentials_of_a_store_come_from_a_file_and_reach_tasks_but_not_the_api_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secrets_folder: Path
) -> None:
    (secrets_folder / "store.env").chmod(0o600)
    (secrets_folder / "store.env").write_text("# of the store\nAWS_SECRET_ACCESS_KEY=a=b c\n\n")
    names = (
        *("airflow_fernet", "airflow_jwt", "airflow_session", "airflow_database_url"),
        *("broker_url", "node_token", "entity_key"),
    )
    own = hand(
        secrets_folder,
        tmp_path / "run",
        **{f"evergreen_{name}": name for name in names},
        **{"store.env": "store.env"},
    )
    variables = {"EVERGREEN_EXECUTOR": "celery"}
    words = ("worker", "scheduler", "api-server")
    found = {word: become(monkeypatch, tmp_path / "home", own, word, **variables) for word in words}
    assert found["worker"][0][1:5] == ["-m", "airflow", "celery", "worker"]
    for word in ("worker", "scheduler"):
        assert found[word][1]["AWS_SECRET_ACCESS_KEY"] == "a=b c"
    assert "AWS_SECRET_ACCESS_KEY" not in found["api-server"][1]
    for command, _ in found.values():
        assert not any(
            (secrets_folder / name).read_text().strip() in " ".join(command) for name in GENERATED
        )


def test_addresses_of_sources_come_from_a_file_and_reach_tasks_by_the_names_of_use_cases(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secrets_folder: Path
) -> None:
    address = "postgresql://reader:hunter2@warehouse:5432/loans"
    (secrets_folder / "sources.env").chmod(0o600)
    lines = (secrets_folder / "sources.env").read_text()
    assert variables_of(Settings(secrets_dir=secrets_folder), "sources.env") == {}, "an example"
    (secrets_folder / "sources.env").write_text(
        f"{lines}WAREHOUSE_URL={address}\nOTHER_URL=sqlite://\n"
    )
    (tmp_path / "usecases").mkdir()
    (tmp_path / "usecases" / "loans.yaml").write_text("source: {url_env: WAREHOUSE_URL}\n")
    names = ("airflow_fernet", "airflow_database_url", "broker_url", "entity_key")
    own = hand(
        secrets_folder,
        tmp_path / "run",
        **{f"evergreen_{name}": name for name in names},
        **{"sources.env": "sources.env"},
    )
    variables = {"EVERGREEN_EXECUTOR": "celery", "EVERGREEN_USECASES": str(tmp_path / "usecases")}
    _, environment = become(monkeypatch, tmp_path / "home", own, "worker", **variables)
    assert environment["WAREHOUSE_URL"] == address
    assert "OTHER_URL" not in environment
    _, environment = become(monkeypatch, tmp_path / "home", own, "command", "status", **variables)
    assert environment["WAREHOUSE_URL"] == address


def test_a_line_that_is_no_credential_is_named_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store.env").write_text("AWS_ACCESS_KEY_ID=x\nhunter2-secret\n")
    monkeypatch.setenv("EVERGREEN_SECRETS_DIR", str(tmp_path))
    settings.cache_clear()
    try:
        assert container.main(["node"]) != 0
    finally:
        settings.cache_clear()
    said = capsys.readouterr().err
    assert "store.env, line 2, is no NAME=VALUE" in said
    assert "hunter2" not in said


def test_a_file_of_credentials_that_cannot_be_read_is_named_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store.env").write_bytes(b"AWS_ACCESS_KEY_ID=hunter2\xff")
    monkeypatch.setenv("EVERGREEN_SECRETS_DIR", str(tmp_path))
    settings.cache_clear()
    try:
        assert container.main(["node"]) != 0
    finally:
        settings.cache_clear()
    said = capsys.readouterr().err
    assert "store.env cannot be read (it is no plain text)" in said
    assert "hunter2" not in said


def test_an_unknown_service_is_refused_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert container.main(["nginx"]) != 0
    assert re.search(
        r"'nginx' is no service of this image; there are .*, node, init", capsys.readouterr().err
    )


def test_volumes_are_given_to_the_user_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o755)
    (tmp_path / "store" / "kept").mkdir(mode=0o755)
    assert container.prepare(tmp_path, owner=os.getuid()) == 0
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "store" / "kept").stat().st_mode) == 0o755


def test_a_step_of_the_init_that_fails_ends_it(capfd: pytest.CaptureFixture[str]) -> None:
    from include.installation.container_init import initialise

    environment = dict(os.environ) | {"EVERGREEN_RECORDS_URL": "nonsense://"}
    assert initialise(environment) != 0
    said = capfd.readouterr()
    assert "records, roles and grants: ended with code" in said.err
    assert "Airflow" not in said.out


def test_a_container_knows_its_service_by_its_first_process() -> None:
    line = b"tini\0--\0python\0-m\0include.installation.container\0node\0"
    assert health.service_of(line) == "node"
    assert health.service_of(b"sleep\x005\0") == ""
    assert health.problem_of("") == ""


def test_a_worker_that_leaves_no_sign_is_unhealthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration import queues

    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path))
    here = Settings(home=tmp_path)
    with pytest.raises(FileNotFoundError):
        health.problem_of("worker")
    sign = queues.alive_file(here)
    sign.parent.mkdir(parents=True)
    sign.touch()
    assert health.problem_of("worker") == ""
    os.utime(sign, (0, 0))
    assert "has left no sign" in health.problem_of("worker")
    assert health.ALIVE_SECONDS == queues.ALIVE_SECONDS
