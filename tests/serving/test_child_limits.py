"""A process that loads a model cannot take the machine with it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from include.errors import Unavailable
from include.serving import child_limits, trials
from include.serving.child_limits import bound_process

# What a hostile model would have its process do.
GREEDY = {
    "memory": ("bytearray(1 << 30)", "MemoryError"),
    "disk": ("open({folder!r} + '/filled', 'wb', 0).write(b'x')", "File too large"),
    "files": ("[open('/dev/null') for _ in range(1000)]", "Too many open files"),
}


@pytest.mark.parametrize("what", GREEDY)
def test_what_it_may_take_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(child_limits, "BASE_BYTES", 512 << 20)
    code, complaint = GREEDY[what]
    child = subprocess.Popen(
        [sys.executable, "-c", f"input(); {code.format(folder=str(tmp_path))}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    bound_process(child.pid, str(tmp_path))
    _, printed = child.communicate("go\n", timeout=60)
    assert child.returncode == 1
    assert complaint in printed


def test_a_trial_that_works_without_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "while True: pass"]
    monkeypatch.setattr(trials, "python_module", lambda *_: command)
    real = trials.bound_process

    def bound(pid: int, folder: str, *, cpu_seconds: int | None) -> None:
        assert cpu_seconds == 60, "as long as is waited for it"
        real(pid, folder, cpu_seconds=1)

    monkeypatch.setattr(trials, "bound_process", bound)
    with pytest.raises(Unavailable, match="was killed"):
        asyncio.run(trials.try_model(str(tmp_path), "digest", "pins", seconds=60))


def test_one_that_has_ended_is_passed_over(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    bound_process(child.pid, str(tmp_path))
