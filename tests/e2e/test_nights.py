"""The shipped use case through Airflow by a clock that the test turns: a backfill twice, then two
nights in a row.

The clock of all processes of the installation is shifted by a small library (shifted_clock.c),
compiled here.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.clock import utc_now
from include.config.settings import Settings
from tests.builders.installation import small_repayment
from tests.builders.ports import free_ports
from tests.e2e.installations import EVERY_DAG, Embedded

NAME = "repayment"
DAYS = 2
HISTORY = 100
ENTITY = 1_000_001  # the first account of the simulated portfolio
COMPILER = shutil.which("cc")
TRAINING = "{window: 52d, exclude: [age_group, gender]}"
GATES = "{min_auc: 0.3, min_rows: 3, max_calibration_error: 0.9, over_baseline: -0.6, margin: 0.9}"

# Judged by past requests, as there are none to come. Models of so few rows differ widely.
RELEASE = "release: {watch: 0s, verdict: {scores: off, decisions: off}}"


class Clock:
    """The wall clock of an installation."""

    def __init__(self, folder: Path) -> None:
        self.library, self.path = folder / "shifted_clock.so", folder / "shift"
        source = Path(__file__).with_name("shifted_clock.c")
        # Where the shift stands is compiled in: a variable would not reach every process.
        options = ["-shared", "-fPIC", "-O2", f'-DSHIFTED_CLOCK="{self.path}"']
        subprocess.run([str(COMPILER), *options, "-o", str(self.library), str(source)], check=True)
        self.path.write_bytes(struct.pack("q", 0))

    def set(self, moment: datetime) -> None:
        """Turn it; it goes on from there."""
        shift = round((moment - utc_now()).total_seconds())
        with self.path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as page:
            page[:] = struct.pack("q", shift)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library)}


class Night(Embedded):
    """An installation of the simulated portfolio whose clock stands where a test puts it."""

    def __init__(self, folder: Path) -> None:
        # Never before the files that it is made of.
        self.today = utc_now().date() + timedelta(days=1)
        self.clock = Clock(folder)
        self.clock.set(at(self.today, 12))
        first = self.today - timedelta(days=HISTORY)
        small_repayment(
            folder / "usecases", 300, gates=GATES, training=TRAINING, history=f"{{first: {first}}}"
        )
        path = folder / "usecases" / f"{NAME}.yaml"
        text = path.read_text().replace("valid_from: 2026-01-01", f"valid_from: {first}")
        path.write_text(f"{text}\n{RELEASE}\n")
        ports = free_ports(3)
        settings = Settings(
            home=folder / "var",
            usecases=str(path.parent),
            airflow_port=ports[0],
            mlflow_port=ports[1],
            node_port=ports[2],
        )
        super().__init__(settings, NAME, "--once", "--days", str(DAYS), **self.clock.environment)

    def key(self, back: int) -> str:
        """Return the partition so many days before the day on which all began."""
        return (self.today - timedelta(days=back)).isoformat()

    def waits_for_cut_off(self, key: str) -> bool:
        """Tell whether a key has its run, and that holds no worker."""
        runs = self.api.runs(f"{NAME}__ingest_data", key=key)
        return [
            task.state
            for run in runs
            for task in self.api.tasks(run)
            if task.task_id == "wait_for_cut_off"
        ] == ["deferred"]

    def recorded(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Return state and digest of all that is on record."""
        return {
            (row.stage, row.key): (row.state, row.digest) for row in self.records.results.of(NAME)
        }

    def versions(self) -> dict[str, Any]:
        """Return the versions of the lake's tables: a write would raise one.

        Not of the predictions: what was answered is imported every hour, whatever else runs.
        """
        found = {
            str(log.parent): max(log.glob("*.json")).name
            for log in self.settings.home.glob("lake/**/_delta_log")
            if log.parent.name != "predictions"
        }
        assert len(found) > 5, found
        return found


def at(day: date, hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    if COMPILER is None:
        pytest.skip("no C compiler (cc) here to build the library that turns the clock")
    made = Night(tmp_path_factory.mktemp("nights"))
    yield made
    made.end()


@pytest.mark.slow
def test_a_backfill_twice_gives_equal_digests_and_touches_nothing_live(night: Night) -> None:
    assert night.process.wait(timeout=1200) == 0, night.said
    newest = night.key(1)
    route = night.records.routes.get(NAME)
    assert (route.champion, route.watermark) == (1, newest)
    keys = [night.key(back) for back in range(DAYS + 1, 1, -1)]
    modes = {row.key: (row.mode, row.target) for row in night.records.partitions.of(NAME)}
    assert modes[newest] == ("live", "deployed")
    assert {modes[key] for key in keys} == {("backfill", "judged")}
    first, live, versions = night.recorded(), night.live_state(NAME), night.versions()
    assert {("evaluate_model", key) for key in keys} <= set(first)

    night.process = night.start("--days", str(DAYS))
    night.wait(lambda: "Ctrl-C stops everything" in night.said, "answer", 300)
    said = night.said.rpartition("starting Evergreen")[2]
    assert said.count("ingest_data") == DAYS
    assert night.recorded() == first
    assert night.live_state(NAME) == live
    assert night.versions() == versions


class Caller(threading.Thread):
    """Ask the node again and again; keep which models answered, and what no model answered."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.done = url, threading.Event()
        self.failed: list[Any] = []
        self.versions: list[int] = []

    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=20) as client:
            while not self.done.wait(0.1):
                answer = client.post(self.url, json={"entity": ENTITY})
                if answer.status_code != 200:
                    self.failed.append((answer.status_code, answer.text))
                elif answer.json()["model_version"] not in self.versions[-1:]:
                    self.versions.append(answer.json()["model_version"])


@pytest.mark.slow
def test_two_nights_in_a_row_run_by_themselves(night: Night) -> None:
    assert night.process.poll() is None, "the installation of the test before is up"
    caller = Caller(f"{night.settings.node_url}/v1/{NAME}/predict")
    caller.start()
    champion = night.records.routes.get(NAME).champion
    champions = [champion]
    for back in (0, -1):
        key, midnight = night.key(back), night.today + timedelta(days=1 - back)
        night.clock.set(at(midnight, 0, 0, 1))
        night.wait(
            lambda key=key: night.waits_for_cut_off(key),
            f"a run of {key} that waits for its cut-off",
            60,
        )  # type: ignore[misc]
        night.clock.set(at(midnight, 2, 0, 1))
        night.wait(
            lambda key=key: set(EVERY_DAG) <= set(night.chain(NAME, key)),
            f"end of the night of {key}",
            240,
        )  # type: ignore[misc]
        chain = night.chain(NAME, key)
        assert {run.state for run in chain.values()} == {"success"}
        assert chain["ingest_data"].run_type == "scheduled"
        row = night.records.partitions.get(NAME, key)
        assert row is not None
        assert (row.mode, row.target) == ("live", "deployed")
        judged = night.records.results.get(NAME, key, "evaluate_model")
        assert judged is not None
        assert judged.outputs["opponent"] == champion
        route = night.records.routes.get(NAME)
        assert (route.champion, route.previous, route.watermark) == (
            judged.outputs["version"],
            champion,
            key,
        )
        champion = route.champion
        champions.append(champion)
        night.wait(
            lambda: caller.versions == champions or bool(caller.failed),
            "answer of the new champion",
            30,
        )
    caller.done.set()
    caller.join(30)
    assert caller.failed == []
    assert caller.versions == champions
    assert night.records.audit.verify() is None
    assert night.end() == 0
