"""Settings: where they come from, and that secrets stay secret."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from include.config.settings import Settings
from include.errors import ConfigError

SECRETS = {
    "EVERGREEN_RECORDS_URL": "postgresql://evergreen:hunter2-records@db/evergreen",
    "EVERGREEN_MLFLOW_URI": "postgresql://evergreen:hunter2-mlflow@db/mlflow",
    "EVERGREEN_NODE_TOKEN": "hunter2-node-of-thirty-two-letters",
}


def test_secrets_stand_in_no_repr_dump_or_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = Settings(home=tmp_path)
    for text in (
        repr(settings),
        str(settings),
        f"{settings!s}",
        json.dumps(settings.model_dump(mode="json")),
        settings.model_dump_json(),
    ):
        assert "hunter2" not in text
    assert settings.records_address == SECRETS["EVERGREEN_RECORDS_URL"]
    assert settings.mlflow_address == "postgresql+psycopg://evergreen:hunter2-mlflow@db/mlflow", (
        "the driver that is installed"
    )
    assert settings.node_secret.get_secret_value() == "hunter2-node-of-thirty-two-letters"
    monkeypatch.setenv("EVERGREEN_NODE_PORT", "no port")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "hunter2" not in str(caught.value)


def test_a_generated_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    old = os.umask(0)
    try:
        with ThreadPoolExecutor(8) as pool:
            made = {
                secret.get_secret_value()
                for secret in pool.map(lambda _: settings.secret("node_token"), range(8))
            }
    finally:
        os.umask(old)
    path = tmp_path / "secrets" / "node_token"
    assert made == {path.read_text()}
    assert len(path.read_text()) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["node_token"]
    assert path.read_text() not in repr(settings.secret("node_token"))
    assert Settings(home=tmp_path).node_secret == settings.secret("node_token")


GENERATED = (
    "node_token",
    "mlflow_admin",
    "mlflow_flask",
    "airflow_fernet",
    "airflow_jwt",
    "airflow_session",
)


@pytest.mark.parametrize("name", GENERATED)
@pytest.mark.parametrize("left", [b"", b"\n", b"short", b"\0" * 43, b"\xff\xfe" * 20])
def test_a_secret_that_was_emptied_or_cut_off_is_refused(
    tmp_path: Path, name: str, left: bytes
) -> None:
    settings = Settings(home=tmp_path)
    settings.secret(name)
    path = tmp_path / "secrets" / name
    path.write_bytes(left)
    with pytest.raises(ConfigError, match=f"{path}.*delete {path}"):
        settings.secret(name)
    assert path.read_bytes() == left, "what is there is a person's to judge"
    path.unlink()
    assert len(settings.secret(name).get_secret_value()) == 43


def test_a_token_that_can_be_guessed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_NODE_TOKEN", "x" * 31)
    with pytest.raises(ConfigError, match=r"EVERGREEN_NODE_TOKEN has 31 characters.*at least 32"):
        _ = Settings(home=tmp_path).node_secret
    monkeypatch.setenv("EVERGREEN_NODE_TOKEN", "")
    assert len(Settings(home=tmp_path).node_secret.get_secret_value()) == 43, "one is generated"


def test_a_secret_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order of calls, since no test can cut the power."""
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        assert done[-1] == "folder" or os.fstat(descriptor).st_size == 43
        fsync(descriptor)

    def linked(source: Path, target: Path) -> None:
        done.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    Settings(home=tmp_path).secret("node_token")
    assert done == ["file", "link", "folder"]


def test_state_follows_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVERGREEN_HOME", "state")
    settings = Settings()
    assert settings.home == tmp_path / "state"
    assert settings.lake_root == str(tmp_path / "state" / "lake")
    assert settings.records_address == f"sqlite:///{tmp_path / 'state' / 'records.db'}"
    monkeypatch.setenv("EVERGREEN_HOME", "")
    assert Settings().home.name == "var"


@pytest.mark.parametrize(
    ("host", "written", "public"),
    [
        ("127.0.0.1", "127.0.0.1", False),
        ("127.0.0.2", "127.0.0.2", False),
        ("localhost", "localhost", False),
        ("::1", "[::1]", False),
        ("0.0.0.0", "0.0.0.0", True),
        ("::", "[::]", True),
        ("fd00::5", "[fd00::5]", True),
        ("models.example.org", "models.example.org", True),
    ],
)
def test_addresses_of_every_kind_of_host(host: str, written: str, public: bool) -> None:
    settings = Settings(host=host, airflow_port=1, mlflow_port=2, node_port=3)
    urls = [settings.airflow_url, settings.mlflow_url, settings.node_url]
    assert urls == [f"http://{written}:{port}" for port in (1, 2, 3)]
    assert [httpx.URL(url).port for url in urls] == [1, 2, 3]
    assert settings.is_public == public


def test_settings_are_frozen_and_checked(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with pytest.raises(ValidationError, match="frozen"):
        settings.node_port = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="less than or equal to 65535"):
        Settings(node_port=70_000)


def test_use_case_folders_are_a_path(tmp_path: Path) -> None:
    settings = Settings(usecases=f"{tmp_path / 'a'}:{tmp_path / 'b'}:")
    assert settings.usecase_dirs == [tmp_path / "a", tmp_path / "b"]


def test_every_setting_has_a_description_of_one_line() -> None:
    texts = {name: field.description or "" for name, field in Settings.model_fields.items()}
    assert [name for name, text in texts.items() if len(text) < 20 or "\n" in text] == []


@pytest.mark.parametrize(
    ("memory", "size"), [("4GB", 4 * 10**9), ("1.5 GiB", 3 * 2**29), ("64MB", 64 * 10**6)]
)
def test_half_of_the_memory_is_for_queries(memory: str, size: int) -> None:
    settings = Settings(memory=memory)
    assert settings.memory_bytes == size
    assert settings.memory_limit == f"{size // 2 // 2**20}MiB"


def test_a_quarter_of_the_machine_is_taken_where_nothing_is_said() -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < Settings(memory="").memory_bytes <= machine // 4


@pytest.mark.parametrize("at", [0, 1])
def test_the_memory_of_a_container_is_that_of_its_limit(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"]
    monkeypatch.setattr("include.config.settings.CGROUP_LIMITS", tuple(paths))
    paths[at].write_text("400000000\n")
    paths[1 - at].write_text("max\n" if at else "9223372036854771712\n")
    assert Settings(memory="").memory_bytes == 100_000_000


def test_settings_stand_in_secret_files_too_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "secrets of the host"
    folder.mkdir()
    (folder / "evergreen_records_url").write_text("postgresql://u:hunter2-file@db/evergreen\n")
    (folder / "evergreen_mlflow_uri").write_text("postgresql://u:hunter2-file@db/mlflow\n")
    (folder / "evergreen_unknown").write_text("of somebody else's")
    monkeypatch.setenv("EVERGREEN_SECRETS_DIR", str(folder))
    monkeypatch.setenv("EVERGREEN_MLFLOW_URI", "sqlite:///of-the-environment")
    monkeypatch.setenv("EVERGREEN_RECORDS_URL", "")  # as an empty line of an .env file leaves it
    settings = Settings(home=tmp_path / "home")
    assert settings.records_address == "postgresql://u:hunter2-file@db/evergreen"
    assert settings.mlflow_address == "sqlite:///of-the-environment"
    assert "hunter2" not in repr(settings)


def test_secrets_of_several_machines_come_from_their_folder_and_none_is_made_up(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "evergreen_airflow_jwt").write_text("j" * 43 + "\n")
    (folder / "evergreen_node_token").write_text("n" * 43)
    machines = [Settings(home=tmp_path / name, secrets_dir=folder) for name in ("a", "b")]
    for settings in machines:
        assert settings.secret("airflow_jwt").get_secret_value() == "j" * 43
        assert settings.node_secret.get_secret_value() == "n" * 43
        with pytest.raises(ConfigError, match=r"evergreen_airflow_session cannot be read.*Write"):
            settings.secret("airflow_session")
        assert not settings.home.exists()


@pytest.mark.parametrize("left", [b"", b"short", b"\xff\xfesecret" * 9])
def test_a_bad_secret_file_is_refused_and_not_shown(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "evergreen_airflow_jwt").write_bytes(left)
    with pytest.raises(ConfigError, match="evergreen_airflow_jwt") as caught:
        Settings(home=tmp_path / "home", secrets_dir=tmp_path).secret("airflow_jwt")
    assert "xff" not in str(caught.value)


def test_a_folder_of_secrets_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_SECRETS_DIR", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match=r"EVERGREEN_SECRETS_DIR is .*missing, which cannot be"):
        Settings()


def test_the_store_is_the_home_or_where_it_is_said_and_segments_lie_in_it(tmp_path: Path) -> None:
    home = Settings(home=tmp_path)
    assert (home.store_root, home.segments_root) == (str(tmp_path), "")
    folder = Settings(home=tmp_path, store_uri=f"file://{tmp_path}/store/")
    assert folder.store_root == f"{tmp_path}/store"
    assert folder.segments_root == f"{tmp_path}/store/segments"
    bucket = Settings(home=tmp_path, store_uri="s3://bucket/path/", segments_uri="/mnt/segments")
    assert (bucket.store_root, bucket.segments_root) == ("s3://bucket/path", "/mnt/segments")
