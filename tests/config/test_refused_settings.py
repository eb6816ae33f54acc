"""Settings that cannot be read end everything in one line: what is wrong, and how to mend it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from include.config.settings import settings
from include.errors import ConfigError
from include.processes import bare_environment
from tests.builders.shut_files import run_plainly, shut


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of secret files, of which two belong to another user."""
    made = tmp_path / "secrets"
    made.mkdir()
    for name in ("records_url", "online_url", "alert_url"):
        (made / f"evergreen_{name}").write_text(f"redis://:hunter2-{name}@host/0")
    for name in ("records_url", "online_url"):
        shut(made / f"evergreen_{name}")
    return made


def started(tmp_path: Path, *words: str, **variables: str) -> tuple[int, str, str]:
    """Return the exit code of a module, what it printed, and what it said on standard error."""
    variables |= {"EVERGREEN_HOME": str(tmp_path / "home")}
    done = run_plainly([sys.executable, "-m", *words], bare_environment(**variables))
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("include.installation.container", "node"), 2),
        (("include.installation.container", "command", "status", "shop"), 2),
        (("include.predictions.shipping",), 1),
        (("include", "status", "shop"), 2),
    ],
)
def test_secret_files_of_another_user_are_named_with_the_remedy(
    tmp_path: Path, folder: Path, words: tuple[str, ...], code: int
) -> None:
    ended, _, said = started(tmp_path, *words, EVERGREEN_SECRETS_DIR=str(folder))
    assert ended == code
    assert len(said.splitlines()) == 1
    for name in ("records_url", "online_url"):
        assert f"{folder / f'evergreen_{name}'} cannot be read (Permission denied)" in said
    assert f"chown {os.getuid()} FILE" in said
    assert "alert_url" not in said
    assert "hunter2" not in said


@pytest.mark.parametrize("first", [("include",), ("include.installation.container", "command")])
def test_the_doctor_tells_them_as_a_finding_also_as_json(
    tmp_path: Path, folder: Path, first: tuple[str, ...]
) -> None:
    variables = {"EVERGREEN_SECRETS_DIR": str(folder)}
    code, printed, said = started(tmp_path, *first, "doctor", "--json", **variables)
    [found] = json.loads(printed)
    assert (code, said) == (1, "")
    assert (found["verdict"], found["subject"]) == ("fail", "settings")
    assert "evergreen_records_url cannot be read" in found["found"]
    assert "chmod 400 FILE" in found["remedy"]
    code, printed, said = started(tmp_path, *first, "doctor", **variables)
    assert (code, said) == (1, "")
    assert "1 failed" in printed


def test_a_container_with_wrong_values_names_their_variables_alone(tmp_path: Path) -> None:
    wrong = {"EVERGREEN_WORKER_TASKS": "hunter2", "EVERGREEN_MEMORY": "lots of hunter2"}
    code, printed, said = started(tmp_path, "include.installation.container", "worker", **wrong)
    assert (code, printed, len(said.splitlines())) == (2, "", 1)
    for name in wrong:
        assert f"{name}: " in said
    assert "hunter2" not in said


def test_a_wrong_value_in_a_secret_file_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_SECRETS_DIR", str(tmp_path))
    file = tmp_path / "evergreen_node_port"
    file.write_text("hunter2")
    (tmp_path / "evergreen_records_url").write_bytes(b"hunter2\xff")
    settings.cache_clear()
    with pytest.raises(ConfigError, match="records_url cannot be read") as refused:
        settings()
    assert "it is no plain text" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    (tmp_path / "evergreen_records_url").unlink()
    with pytest.raises(ConfigError, match=f"^{file}: Input should be a valid integer") as refused:
        settings()
    assert "hunter2" not in str(refused.value)


def test_a_path_that_is_none_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_HOME", "~nobody-of-this-name/evergreen")
    settings.cache_clear()
    with pytest.raises(ConfigError, match="EVERGREEN_HOME is no path of this machine"):
        settings()
