"""Try a model in a process of its own: it is loaded and asked its golden rows there.

A damaged booster text can kill the process that loads it, and must not kill the node. The child is
ended with the wait for it, so a trial that hangs holds no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from include.errors import ArtefactError, Unavailable
from include.models.trial import OTHER_CODE, ROOT
from include.processes import bare_environment, python_module
from include.serving.child_limits import bound_process

SECONDS = 60.0


async def try_model(folder: str, digest: str, pins: str | None, *, seconds: float) -> None:
    """Have a bundle verified, loaded and asked its golden rows in a fresh process.

    `pins` are those by which this node found that the model fits it: the process starts from the
    disk, where an upgrade may have put other code meanwhile.

    Raises:
        ArtefactError: it is not the recorded one, or answers its golden rows otherwise.
        Unavailable: the process was killed, or not done in time: that may be the machine's fault;
            or the code on the disk is not what this node runs.
    """
    command = python_module("include.models.trial", str(Path(folder).resolve()), digest, pins or "")
    environment = bare_environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    code, printed, complaint = await _run(command, environment, seconds, folder)
    if code < 0:
        raise Unavailable(
            f"{folder}: the process of its trial was killed ({signal.Signals(-code).name}); the "
            "file is damaged, or the machine is short of memory"
        )
    if code == OTHER_CODE:
        raise Unavailable(
            f"{folder}: the code or the libraries on the disk are not those that this node has "
            "loaded, so what would be tried is not what would serve; restart the node"
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
    # It may run beside others on a slow machine: time on the processor is less than on the clock.
    bound_process(process.pid, folder, cpu_seconds=max(1, math.ceil(seconds)))
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
