"""Crashes and concurrency of the data stages: killed, stopped, doubled, beside each other."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.errors import Busy
from include.pipeline import runner
from include.records.records import Records
from tests.builders.installation import DATA_STAGES, Installation, small_repayment
from tests.faults import kill

KEY = "2026-01-03"


def run_stages(
    home: str,
    stages: tuple[str, ...],
    key: str,
    owner: str,
    attempt: int = 1,
    wait: float = 0.0,
    lease: float = 2.0,
) -> None:
    """Child: run stages for a partition; a short lease is for who is killed while he has it."""
    settings = Settings(home=Path(home), usecases=f"{home}/usecases", lease_seconds=lease)
    records = Records.open(settings.records_address)
    records.partitions.raise_to(
        "repayment", key, mode="backfill", target="judged", actor="test", at=utc_now()
    )
    for stage in stages:
        runner.run(
            stage, "repayment", key, settings=settings, owner=owner, attempt=attempt, wait=wait
        )


def install(home: Path, until: str = "2026-01-02", customers: int = 200) -> Installation:
    small_repayment(home / "usecases", customers)
    made = Installation(home, lease_seconds=2.0)
    made.load("2026-01-01", until)
    return made


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """What an undisturbed installation holds after the day."""
    made = install(tmp_path_factory.mktemp("expected"))
    made.day(KEY, DATA_STAGES)
    return made.digests()


@pytest.mark.slow
def test_killed_at_twenty_moments_nothing_partial_is_seen_and_the_retry_agrees(
    tmp_path: Path, expected: dict[tuple[str, str], str]
) -> None:
    """Faults 1 and 10: SIGKILL (or SIGTERM) at random moments, each followed by a retry that
    finds the same digests.
    """
    made = install(tmp_path)
    longest = kill.timed(kill.start(run_stages, str(tmp_path), DATA_STAGES, "2026-01-02", "warm"))
    key_rows = {at: value for at, value in expected.items() if at[1] == KEY}
    killed = 0
    for number, moment in enumerate(kill.moments(20, longest * 1.2)):
        how = signal.SIGTERM if number % 4 == 3 else signal.SIGKILL
        child = kill.start(run_stages, str(tmp_path), DATA_STAGES, KEY, f"try-{number}")
        killed += kill.kill_after(child, moment, how)
        seen = made.digests([KEY])
        assert all(key_rows[at] == value for at, value in seen.items()), (
            "a reader saw a partial partition"
        )
        if number % 5 == 4:
            run_stages(str(tmp_path), DATA_STAGES, KEY, f"retry-{number}", wait=10)
            assert made.digests() == expected
    run_stages(str(tmp_path), DATA_STAGES, KEY, "last", wait=10)
    assert made.digests() == expected
    assert killed >= 3
    assert made.records.audit.verify() is None


def test_a_stopped_writer_is_fenced_once_a_retry_has_succeeded(
    tmp_path: Path, expected: dict[tuple[str, str], str]
) -> None:
    """Fault 11: SIGSTOP, a retry succeeds, SIGCONT: the stale writer's commit is refused."""
    for number in range(10):
        home = tmp_path / str(number)
        made = install(home)
        child = kill.start(run_stages, str(home), DATA_STAGES, KEY, "run", 1)
        # It is writing its first rows.
        while not any(home.glob(f"lake/repayment/raw/*/partition={KEY}/*")):
            time.sleep(0.001)
        kill.stop_between_transactions(child, home / "records.db")
        if made.records.results.get("repayment", KEY, "ingest_data") is None:
            break
        os.kill(child.pid, signal.SIGKILL)  # stopped too late: it has recorded them already
    else:
        pytest.fail("ten times the writer had ended before it was stopped")
    try:
        run_stages(str(home), DATA_STAGES, KEY, "run", attempt=2)
        versions = {table: made.lake.version(table) for table in made.tables()}
        results = {stage: made.result(stage, KEY) for stage in DATA_STAGES}
    finally:
        os.kill(child.pid, signal.SIGCONT)
    child.join(300)
    assert child.exitcode == 1, "the stale writer must end with an error"
    assert made.digests() == expected
    assert {table: made.lake.version(table) for table in made.tables()} == versions
    assert {stage: made.result(stage, KEY) for stage in DATA_STAGES} == results


def test_the_same_partition_twice_at_once_is_computed_once(
    tmp_path: Path, expected: dict[tuple[str, str], str]
) -> None:
    """Fault 14: one wins; the other waits and is answered from the record, or says who is at
    work.
    """
    made = install(tmp_path)
    children = [
        kill.start(run_stages, str(tmp_path), DATA_STAGES, KEY, f"run-{n}", 1, 240.0, 60.0)
        for n in range(2)
    ]
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0, 0]
    assert made.digests() == expected
    with (
        made.records.leases.claim(
            "repayment", "ingest_data", KEY, owner="somebody", attempt=1, ttl=60
        ),
        pytest.raises(Busy, match="in progress: held by somebody"),
    ):
        made.run("ingest_data", KEY)


@pytest.mark.slow
def test_a_backfill_beside_the_nightly_run_disturbs_neither(tmp_path: Path) -> None:
    """Fault 17: disjoint partitions at once, one of them a range; the same digests as one after
    the other.
    """
    alone = install(tmp_path / "alone", until="2026-01-08", customers=100)
    both = install(tmp_path / "both", until="2026-01-04", customers=100)
    nightly = kill.start(
        run_stages, str(tmp_path / "both"), ("ingest_data",), "2026-01-08", "nightly", 1, 0.0, 60.0
    )
    both.load("2026-01-05", "2026-01-07")
    nightly.join(300)
    assert nightly.exitcode == 0
    both.day("2026-01-08", DATA_STAGES)
    assert both.digests() == alone.digests()


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise",
    [
        pytest.param({"TZ": "Asia/Kolkata"}, id="TZ"),
        pytest.param({"LC_ALL": "C", "PYTHONUTF8": "0"}, id="LC_ALL"),
        pytest.param(
            {
                "PYTHONDONTWRITEBYTECODE": "1",
                "HTTP_PROXY": "http://127.0.0.1:9",
                "PYTHONHASHSEED": "3",
            },
            id="PYTHONDONTWRITEBYTECODE",
        ),
    ],
)
def test_a_noisy_environment_gives_the_same_digests(
    tmp_path: Path, expected: dict[tuple[str, str], str], noise: dict[str, str]
) -> None:
    """Fault 34, in processes of their own, through the command line."""
    import subprocess
    import sys

    made = install(tmp_path)
    environment = {
        **os.environ,
        **noise,
        "EVERGREEN_HOME": str(tmp_path),
        "EVERGREEN_USECASES": str(tmp_path / "usecases"),
    }
    for stage in DATA_STAGES:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "include",
                "run",
                stage,
                "--use-case",
                "repayment",
                "--partition",
                KEY,
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert made.digests() == expected
