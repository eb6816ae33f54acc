"""Where an answer comes from: a commit, changed files, and the lock of the libraries."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.pipeline import provenance


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    provenance.git_commit.cache_clear()
    provenance.lock_digest.cache_clear()


def git(root: Path, *words: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    command = ["git", "-C", str(root), *who, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_says_whether_files_differ_from_it(root: Path) -> None:
    git(root, "init", "-q")
    (root / "code.py").write_text("first")
    git(root, "add", "code.py")
    git(root, "commit", "-q", "-m", "first")
    head = git(root, "rev-parse", "HEAD")
    (root / "untracked").touch()
    assert provenance.git_commit() == head
    (root / "code.py").write_text("second")
    assert provenance.git_commit() == head, "a process asks once"
    forget()
    assert provenance.git_commit() == f"{head}+dirty"


def test_outside_of_git_and_without_a_lock_there_is_none(root: Path) -> None:
    assert provenance.git_commit() == "none"
    assert provenance.lock_digest() == "none"


def test_the_lock_is_known_by_its_content(root: Path) -> None:
    (root / "requirements.txt").write_bytes(b"duckdb==1\n")
    assert provenance.lock_digest() == hashlib.sha256(b"duckdb==1\n").hexdigest()
