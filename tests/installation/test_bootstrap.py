"""What the installer does before it installs: it refuses, or finds that all is done."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from include.installation import bootstrap


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the installer look at a folder with two locks and a .venv that holds a Python."""
    for name in bootstrap.LOCKS.values():
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv" / ".installed")

    def no_command(command: list[str]) -> None:
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(bootstrap, "run", no_command)
    return tmp_path


def test_it_needs_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(bootstrap.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names)


def test_an_unknown_argument_installs_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bootstrap.main(["--help"]) == 1
    assert "unknown argument --help; there are --dev and --lock" in capsys.readouterr().err
    assert not (project / ".venv" / ".installed").exists()


def test_a_python_that_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "FIRST", (4, 0))
    assert bootstrap.main([]) == 1
    assert "Evergreen needs 3.11 to 3.13. Name one: make install PYTHON=" in capsys.readouterr().err


def test_a_finished_installation_of_these_locks_is_left_alone(project: Path) -> None:
    stamp = project / ".venv" / ".installed"
    stamp.write_text(json.dumps(bootstrap.state("dev")))
    assert bootstrap.main(["--dev"]) == 0
    assert bootstrap.main([]) == 0, "dev has all that base has"
    stamp.write_text(json.dumps(bootstrap.state("base")))
    assert bootstrap.is_installed("base")
    assert not bootstrap.is_installed("dev")
    (project / "requirements.txt").write_text("# another lock\n")
    assert not bootstrap.is_installed("base")
    stamp.write_text("{")
    assert not bootstrap.is_installed("base")


def test_an_installation_that_was_moved_is_not_finished(project: Path, tmp_path: Path) -> None:
    stamp = project / ".venv" / ".installed"
    stamp.write_text(json.dumps(bootstrap.state("base") | {"root": "/elsewhere"}))
    assert not bootstrap.is_installed("base")


def test_a_failed_command_is_one_line_and_leaves_no_stamp(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamp = project / ".venv" / ".installed"
    stamp.write_text("{}")
    (project / ".venv" / "bin" / "python").unlink()
    assert bootstrap.main([]) == 1
    message = capsys.readouterr().err
    assert "failed (code 3); see above, then run `make install` again" in message
    assert not stamp.exists()


def test_what_would_make_it_look_elsewhere_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    environment = bootstrap.clean()
    assert not {"PYTHONPATH", "PIP_TARGET"} & environment.keys()
    assert environment["HTTPS_PROXY"] == "http://proxy"
