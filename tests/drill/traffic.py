"""Traffic for nodes: sticky entities of which few ask often, through a balancer that retries once.

What a request comes to is kept until it is taken: an answer, a failure, or an answer after the
connection that it was sent on first was lost with its node.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.builders.serving import NAME
from tests.builders.sick import rows_of

ENTITIES = 600
THREADS = 6
RATE = 120.0  # requests a second, of all threads
OF_ROWS = 0.1  # of them bring a row and no entity
TAIL = 1.1  # exponent of how often an entity asks, by its rank


@dataclass
class Tally:
    """What requests came to; `lost` were in the hands of a process that was killed."""

    requests: int = 0
    lost: int = 0
    failed: list[str] = field(default_factory=list)
    flagged: int = 0  # answered, but by a model that stands in, or without the store
    slowest: float = 0.0  # seconds


class Traffic:
    """Threads that ask nodes by their ports; a node that does not answer is asked less."""

    def __init__(self, ports: Sequence[int], *, rate: float = RATE) -> None:
        self._ports, self.rate = list(ports), rate
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._tally, self._answered = Tally(), Counter[int]()
        self._rows = rows_of(ENTITIES)
        self._weights = [1 / (rank + 3) ** TAIL for rank in range(ENTITIES)]

    def take(self) -> Tally:
        """Return what has been since this was last called."""
        with self._lock:
            taken, self._tally = self._tally, Tally()
        return taken

    def answered_by(self, version: int) -> int:
        """Return how many requests a version has answered, since this was last called."""
        with self._lock:
            count = self._answered.pop(version, 0)
            self._answered.clear()
        return count

    @contextlib.contextmanager
    def running(self) -> Iterator[Traffic]:
        """Ask until the block ends."""
        threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, seed: int) -> None:
        chance, balancer = random.Random(seed), _Balancer(self._ports)
        entities = range(ENTITIES)
        while not self._stop.wait(chance.expovariate(self.rate / THREADS) if self.rate else 0.2):
            if not self.rate:
                continue
            (entity,) = chance.choices(entities, self._weights)
            by_row = chance.random() < OF_ROWS
            asked = {"features": self._rows[entity]} if by_row else {"entity": entity}
            began = time.monotonic()
            status, answered, lost = balancer.ask(json.dumps(asked).encode())
            with self._lock:
                self._count(status, answered, lost, time.monotonic() - began)

    def _count(self, status: int, answered: bytes, lost: int, took: float) -> None:
        tally = self._tally
        tally.requests += 1
        tally.lost += lost
        tally.slowest = max(tally.slowest, took)
        if status != 200:
            tally.failed.append(f"{status} {answered[:160]!r}")
            return
        content = json.loads(answered)
        self._answered[content["model_version"]] += 1
        tally.flagged += bool(content["flags"])


class _Balancer:
    """Asks the nodes in turn, each on one connection that it keeps; asks once more where it fails.

    A connection that is refused passes to the other node: nobody has read the request.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._clients = [
            http.client.HTTPConnection("127.0.0.1", port, timeout=10) for port in ports
        ]
        self._turn = 0

    def ask(self, body: bytes) -> tuple[int, bytes, int]:
        """Return status, content, and how often a connection broke that had the request."""
        lost, problem = 0, ""
        for _ in range(2 * len(self._clients)):
            self._turn = (self._turn + 1) % len(self._clients)
            client = self._clients[self._turn]
            try:
                client.request(
                    "POST", f"/v1/{NAME}/predict", body, {"content-type": "application/json"}
                )
                response = client.getresponse()
                return response.status, response.read(), lost
            except ConnectionRefusedError as error:
                problem = repr(error)
                client.close()
            except (OSError, http.client.HTTPException) as error:
                problem = repr(error)
                client.close()
                lost += 1
                if lost > 1:
                    break
        return 0, problem.encode(), lost
