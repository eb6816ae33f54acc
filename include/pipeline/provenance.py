"""Name where an answer comes from: the commit of the code and the lock of the libraries."""

from __future__ import annotations

import hashlib
import subprocess
from functools import lru_cache

from include.config.settings import ROOT


@lru_cache(maxsize=1)
def git_commit() -> str:
    """Return the commit of the working tree, with `+dirty` where files differ from it.

    Outside of git it is `none`.
    """
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "none"


@lru_cache(maxsize=1)
def lock_digest() -> str:
    """Return the digest of requirements.txt, the lock of the installation."""
    path = ROOT / "requirements.txt"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "none"


def _git(*words: str) -> str:
    completed = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=20, check=True
    )
    return completed.stdout.strip()
