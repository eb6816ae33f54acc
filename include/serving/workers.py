"""The node's threads: a pool for each kind of work, so that none waits behind another's.

A disk or a database that hangs holds the threads of its own kind alone: a rollback never queues
behind a model that is read, a report or a sync of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_THREADS = {
    "rows": 1,  # reads the records
    "admin": 2,  # rollbacks
    "journal": 1,  # rollbacks that the records do not hold yet
    "serving": 2,  # reads and loads models that answer
    "trial": 2,  # reads and loads models that may answer later
    "report": 1,
    "tokens": 1,
    "keys": 1,  # looks at the folder of public keys
    "log": 1,  # syncs prediction logs
    "evidence": 1,  # writes what was counted of releases
    "pages": 1,  # reads the records for people
    "upkeep": 1,  # looks at files of code and at sizes, and removes what nobody needs
}


class Workers:
    """One pool of threads a kind of work."""

    def __init__(self) -> None:
        self._pools = {
            kind: ThreadPoolExecutor(threads, thread_name_prefix=kind)
            for kind, threads in _THREADS.items()
        }
        # So many trials at once: each is a process that loads a model. Models that answer do not
        # queue, and never behind these.
        self.trial_turn = asyncio.Semaphore(2)

    async def run(self, kind: str, work: Callable[..., T], *arguments: object) -> T:
        """Run work in a thread of its kind."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pools[kind], work, *arguments)

    def close(self) -> None:
        """Take no more work; nobody waits for what hangs."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
