"""Try a model in a process of its own: it is loaded and asked its golden rows there.

A damaged booster text can kill the process that loads it, and must not kill the node. The child is
ended with the wait for it, so a trial that hangs holds no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from include.errors import ArtefactError, Unavailable
from include.models.trial import ROOT
from include.processes import bare_environment, python_module

SECONDS = 60.0


async def try_model(folder: str, digest: str, *, seconds: float) -> None:
    """Have a bundle verified, loaded and asked its golden rows in a fresh process.

    Raises:
        ArtefactError: it is not the recorded one, or answers its golden rows otherwise.
        Unavailable: the process was killed, or not done in time: that may be the machine's fault.
    """
    command = python_module("include.models.trial", str(Path(folder).resolve()), digest)
    environment = bare_environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    code, printed, complaint = await _run(command, environment, seconds, folder)
    if code < 0:
        raise Unavailable(
            f"{folder}: the process of its trial was killed ({signal.Signals(-code).name}); the "
            "file is damaged, or the machine is short of memory"
        )
    if code != 0 or not printed.startswith(b"golden "):
        # LightGBM prints what it found in a damaged file, whatever bytes those are.
        lines = complaint.decode(errors="replace").strip().splitlines()
        raise ArtefactError(
            f"{folder}: the trial load failed: {lines[-1] if lines else 'no reason given'}"
        )


async def _run(
    command: Sequence[str], environment: Mapping[str, str], seconds: float, folder: str
) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            printed, complaint = await process.communicate()
    except TimeoutError:
        raise Unavailable(
            f"{folder}: the model did not answer its golden rows in {seconds:g} s"
        ) from None
    finally:
        if process.returncode is None:  # timed out, or the wait for it was cancelled
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    return process.returncode or 0, printed, complaint
