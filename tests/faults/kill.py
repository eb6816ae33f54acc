"""Run a piece of work in a child process that can be killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

PRELOAD = [
    "include.pipeline.runner",
    "include.ingestion.ingest_data",
    "include.validation.validate_data",
    "include.features.materialize_features",
    "pyarrow.compute",
    "deltalake",
]


def context(preload: list[str] = PRELOAD) -> Any:
    """Return a fork server that has imported the stages: a child starts at once and shares no
    thread with the test.
    """
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(preload)
    return made


def start(target: Callable[..., None], *arguments: Any) -> Any:
    """Start a child."""
    child = context().Process(target=target, args=arguments)
    child.start()
    return child


def kill_after(child: Any, seconds: float, how: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal after some seconds, wait for the end, and tell whether the child was still
    at work.
    """
    child.join(seconds)
    alive = child.is_alive()
    if alive:
        os.kill(child.pid, how)
    child.join(30)
    return bool(alive)


def moments(count: int, longest: float, seed: int = 1) -> list[float]:
    """Return random moments within the longest duration."""
    draw = random.Random(seed)
    return [draw.uniform(0.0, longest) for _ in range(count)]


def timed(child: Any) -> float:
    """Wait for a child to end by itself and return its seconds."""
    began = time.monotonic()
    child.join(120)
    assert child.exitcode == 0, f"the undisturbed run ended with {child.exitcode}"
    return time.monotonic() - began


def stop_between_transactions(child: Any, database: Path) -> None:
    """Stop a process while it holds no lock of an SQLite database; stopped within a transaction
    it would lock out everybody.
    """
    while True:
        os.kill(child.pid, signal.SIGSTOP)
        with closing(sqlite3.connect(database, timeout=0.2, isolation_level=None)) as con:
            try:
                con.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:  # its sign of life is under way: let it end
                os.kill(child.pid, signal.SIGCONT)
                time.sleep(0.002)
                continue
            con.execute("ROLLBACK")
            return
