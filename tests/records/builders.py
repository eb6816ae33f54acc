"""What the tests of the records build: entries, results, models, leases, a lost answer."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from include.config.settings import ROOT
from include.records.audit import AuditEntry
from include.records.leases import Lease
from include.records.records import Model, Records, StageResult

AT = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)


THING = ("loans", "train_model", "2026-03-01")


HOLDING = """
import sys
from datetime import UTC, datetime
from include.errors import Busy
from include.records.records import Records, StageResult
at = datetime(2026, 3, 1, tzinfo=UTC)
records = Records.open(sys.argv[1])
with records.leases.claim("loans", "train_model", "2026-03-01", owner="first", attempt=1,
    ttl=float(sys.argv[2])) as lease:
    print("holding", lease.token, flush=True)
    sys.stdin.readline()
    result = StageResult("loans", "2026-03-01", "train_model", "done", "stale", "", {}, [], "",
        "live", at, at, 0.0, "none")
    for act in (lease.check, lambda: records.results.commit(lease, result)):
        try:
            act()
            print("written", flush=True)
        except Busy as error:
            print("Busy:", error, flush=True)
"""


def entry(action: str = "judged", **changes: object) -> AuditEntry:
    """Return an audit entry."""
    return AuditEntry(
        **{
            "action": action,
            "use_case": "loans",
            "subject": "x",
            "actor": "me",
            "details": {},
            "at": AT,
            **changes,
        }
    )


def result(
    digest: str = "sha256:1",
    *,
    key: str = "2026-03-01",
    stage: str = "train_model",
    **changes: object,
) -> StageResult:
    """Return a result."""
    made = StageResult(
        "loans",
        key,
        stage,
        "done",
        digest,
        "",
        {"rows": 3},
        [["t", key, "d"]],
        "memo",
        "live",
        AT,
        AT,
        1.5,
        "none",
    )
    return dataclasses.replace(made, **changes)


def nightly(count: int) -> list[StageResult]:
    """Return trainings of so many nights, each of which reads every partition up to its own."""
    days = [(date(2025, 1, 1) + timedelta(days=number)).isoformat() for number in range(count)]
    tables = ("labels", "features/spending@0123456789", "features/visit@0123456789")

    def read(until: int) -> list[list[str]]:
        return [
            [table, key, f"sha256:{table}{key}".ljust(71, "0")]
            for key in days[:until]
            for table in tables
        ]

    return [result(key=key, reads=read(number + 1)) for number, key in enumerate(days)]


def model(version: int, *, generation: int = 0, digest: str = "", day: int = 0) -> Model:
    """Return a model; its digest follows its version."""
    key = f"2026-03-{day or version:02d}"
    return Model(
        "loans",
        version,
        digest or f"sha256:{version}",
        key,
        AT,
        "live",
        "fs1",
        f"/bundles/{version}",
        generation=generation,
    )


def raise_to(records: Records, mode: str, target: str, actor: str = "me") -> tuple[str, str]:
    """Raise one partition and return what it is meant for then."""
    row = records.partitions.raise_to(
        "loans", "2026-03-01", mode=mode, target=target, actor=actor, at=AT
    )  # type: ignore[arg-type]
    return row.mode, row.target


@contextmanager
def lost_answer() -> Iterator[list[str]]:
    """Let the next commit succeed and its answer get lost: the caller sees a broken connection."""
    seen: list[str] = []

    def fail(session: Session) -> None:
        if not seen and session.get_transaction() is not None:
            seen.append("lost")
            raise DBAPIError(
                "COMMIT",
                {},
                ConnectionError("server closed the connection"),
                connection_invalidated=True,
            )

    event.listen(Session, "after_commit", fail)
    try:
        yield seen
    finally:
        event.remove(Session, "after_commit", fail)


def claim(
    records: Records, owner: str = "me", *, attempt: int = 1, ttl: float = 30.0, wait: float = 0.0
) -> Lease:
    """Claim the thing."""
    return records.leases.claim(*THING, owner=owner, attempt=attempt, ttl=ttl, wait=wait)


def wait_for_signs(records: Records, *keys: str) -> None:
    """Wait until the holders of these keys have each given a sign of life from now on.

    However late: a machine that stands still for longer than a lease lasts makes its holder look
    lost until the next sign, and one that gives no signs never stops looking so.
    """
    silent: dict[str, float] = {}
    heard: set[str] = set()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        before = silent
        silent = {holder.key: holder.silent for holder in records.leases.holders(THING[0])}
        # A silence only grows until a sign ends it.
        heard |= {key for key in keys if silent[key] < before.get(key, 0.0)}
        if heard == set(keys):
            return
        time.sleep(0.05)
    raise AssertionError(f"no signs of life of {', '.join(keys)} in a minute")


@contextmanager
def hold_in_process(url: str, ttl: float = 30.0) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the thing until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, url, str(ttl)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("holding")
        yield process
    finally:
        process.kill()
        process.communicate()
