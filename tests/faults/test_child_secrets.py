"""Really started children: the environment of each holds the secrets that are its own, no other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.clock import wait_for
from include.config.settings import ROOT, Settings
from include.errors import ArtefactError
from include.ingestion.file_reader import FileReader
from include.installation.services import SERVICES, children
from include.packaging.package_model import _builder_environment
from include.processes import start
from include.serving import trials
from include.serving.isolated_model import IsolatedModel
from tests.builders.isolated import digest_of, write_bento
from tests.builders.scanning import Scanner

SHELL = {
    "EVERGREEN_NODE_TOKEN": "the-token-of-the-node-0123456789abcdef",
    "EVERGREEN_RECORDS_URL": "postgresql://u:password-of-records@127.0.0.1:1/none",
    "EVERGREEN_MLFLOW_URI": "postgresql://u:password-of-mlflow@127.0.0.1:1/none",
    "SHOP_DATABASE": "postgresql://u:password-of-shop@127.0.0.1:1/none",
    "CI_TOKEN": "token-of-somebody-else",
}
TASKS = {"airflow_fernet", "records", "mlflow database", "source"}
OWN = {
    "scheduler": TASKS | {"airflow_jwt"},
    "triggerer": TASKS,
    "dag-processor": TASKS,
    "api-server": {"airflow_fernet", "airflow_jwt", "airflow_session"},
    "mlflow": {"mlflow database", "mlflow_admin", "mlflow_flask"},
    "node": {"records", "node token"},
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "usecases").mkdir()
    (tmp_path / "usecases" / "shop.yaml").write_text("url_env: SHOP_DATABASE\n")
    return Settings(home=tmp_path, usecases=str(tmp_path / "usecases"))


@pytest.fixture
def scanner(settings: Settings) -> Scanner:
    words = {
        "node token": SHELL["EVERGREEN_NODE_TOKEN"],
        "records": "password-of-records",
        "mlflow database": "password-of-mlflow",
        "source": "password-of-shop",
        "somebody else's": "token-of-somebody-else",
    }
    generated = (*sorted(OWN["api-server"]), "mlflow_admin", "mlflow_flask")
    return Scanner(words | {name: settings.secret(name).get_secret_value() for name in generated})


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def environment_of(pid: int) -> bytes:
    """Return what a process was started with, as every program of its user can read it."""
    path = Path(f"/proc/{pid}/environ")
    # For a moment after the start the kernel has nothing to show yet.
    held = wait_for(lambda: path.read_bytes() or None, seconds=60, every=0.01)
    assert held, "it has ended"
    return held


def test_every_process_of_the_installation_has_its_own_secrets(
    settings: Settings, scanner: Scanner, started: list[subprocess.Popen[bytes]]
) -> None:
    """By the environment that the supervisor gives; what runs in it makes no difference."""
    assert set(OWN) == set(SERVICES)
    for child in children(settings):
        child.command = [sys.executable, "-c", "import time; time.sleep(60)"]
        child.start()
        assert child.process is not None
        started.append(child.process)
        held = environment_of(child.process.pid)
        assert scanner.names(held) == OWN[child.name], child.name


def test_a_trial_has_no_secret(
    settings: Settings,
    scanner: Scanner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It may write no file: what it holds comes back as its complaint.
    code = "import sys; sys.exit(repr(open('/proc/self/environ', 'rb').read()))"
    monkeypatch.setattr(trials, "python_module", lambda *words: [sys.executable, "-c", code])
    with pytest.raises(ArtefactError) as caught:
        asyncio.run(trials.try_model(str(tmp_path), "digest", "pins", seconds=60))
    told = str(caught.value).encode()
    assert b"PYTHONPATH" in told
    assert scanner.names(told) == set()


def test_a_model_in_a_process_of_its_own_has_no_secret(
    settings: Settings, scanner: Scanner
) -> None:
    tag = write_bento(settings.home)

    async def look() -> bytes:
        isolated = await IsolatedModel.start(
            settings.home,
            tag,
            "bundle",
            "digest",
            seconds=60,
            code_digest=digest_of(settings.home, tag),
        )
        try:
            assert isolated._process is not None
            return environment_of(isolated._process.pid)
        finally:
            isolated.close()

    assert scanner.names(asyncio.run(look())) == set()


@pytest.mark.usefixtures("cold_readers")
def test_who_opens_foreign_files_has_no_secret(
    settings: Settings, scanner: Scanner, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    with FileReader() as reader:
        reader.read(tmp_path / "a.csv", "a.csv", "csv", ["x"])
        assert reader._child is not None
        assert scanner.names(environment_of(reader._child.pid)) == set()


def test_who_builds_and_tries_a_bento_has_no_secret(
    settings: Settings,
    scanner: Scanner,
    tmp_path: Path,
    started: list[subprocess.Popen[bytes]],
) -> None:
    """`bentoml serve` inherits from the process that builds."""
    environment = _builder_environment(tmp_path)
    started.append(
        start(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            environment=environment,
            folder=ROOT,
        )
    )
    held = environment_of(started[0].pid)
    assert b"BENTOML_HOME" in held
    assert scanner.names(held) == set()
