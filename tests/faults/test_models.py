"""Crashes, doubles and damaged artefacts between training and judgement."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.config.settings import ROOT
from include.errors import ArtefactError, Unavailable
from include.models import bundle, mlflow_registry
from include.models.loading import load_model
from include.records.results import Results
from tests.builders.bundles import try_bundle
from tests.builders.judging import NAME, Bench, new_bench
from tests.faults import kill

KEY, NEXT = "2026-02-04", "2026-02-06"
PRELOAD = [
    "include.training.train_model",
    "include.evaluation.evaluate_model",
    "tests.builders.judging",
    "mlflow.lightgbm",
    "feast",
    "sklearn.linear_model",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = new_bench(tmp_path_factory.mktemp("base") / "home")
    made.write()
    made.ask(KEY)
    made.ask(NEXT)
    return made


@pytest.fixture
def bench(base: Bench, tmp_path: Path) -> Bench:
    return base.copy(tmp_path / "home")


@pytest.fixture(scope="module")
def expected(base: Bench, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed training."""
    copied = base.copy(tmp_path_factory.mktemp("expected") / "home")
    return copied.run("train_model", KEY).digest


def child(home: str, stage: str, key: str) -> None:
    Bench(Path(home)).run(stage, key)


def child_dying(home: str, stage: str, where: str) -> None:
    """Run a stage that is killed where it calls `where`, a name of the MLflow registry or of the
    results on record.
    """
    owner: Any = mlflow_registry if hasattr(mlflow_registry, where) else Results

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, where, die)
    Bench(Path(home)).run(stage, KEY)


def start(target: Callable[..., None], *arguments: Any) -> Any:
    process = kill.context(PRELOAD).Process(target=target, args=arguments)
    process.start()
    return process


def statuses(bench: Bench) -> list[str]:
    with sqlite3.connect(bench.home / "mlflow.db") as con:
        return sorted(status for (status,) in con.execute("SELECT status FROM runs"))


def versions(bench: Bench) -> list[tuple[int, str]]:
    with sqlite3.connect(bench.home / "mlflow.db") as con:
        return sorted(con.execute("SELECT version, run_id FROM model_versions"))


@pytest.mark.slow
def test_killed_in_training_the_retry_gives_the_same_model_once(
    bench: Bench, expected: str
) -> None:
    """Fault 3, ten times: whatever a kill left, one version, one model on record, no open run."""
    kill.timed(start(child, str(bench.home), "train_model", NEXT))
    seconds = kill.timed(start(child, str(bench.home), "evaluate_model", NEXT))
    killed = 0
    for moment in kill.moments(10, seconds + 1.5):
        killed += kill.kill_after(start(child, str(bench.home), "train_model", KEY), moment)
        for model in bench.records.models.of(NAME):
            load_model(model.bundle, model.model_digest)
    report = bench.run("train_model", KEY, wait=60)
    assert report.digest == expected
    mine = [model for model in bench.records.models.of(NAME) if model.partition == KEY]
    assert [model.version for model in mine] == [report.outputs["version"]]
    assert [number for number, _ in versions(bench)] == [1, 2]
    assert "RUNNING" not in statuses(bench)
    assert killed >= 2
    assert bench.records.audit.verify() is None


@pytest.mark.slow
def test_killed_between_model_file_and_registry_the_orphan_is_no_model_and_is_found_again(
    bench: Bench, expected: str
) -> None:
    """Fault 4. One that is not made again goes as garbage: retention/test_artefacts."""
    dead = start(child_dying, str(bench.home), "train_model", "register")
    dead.join(60)
    assert dead.exitcode == -signal.SIGKILL
    folder = bench.home / "bundles" / NAME
    (orphan,) = folder.iterdir()
    assert bench.records.models.of(NAME) == []
    assert versions(bench) == []
    assert bench.run("train_model", KEY).digest == expected
    assert bench.model(KEY).bundle_uri == f"store:bundles/{NAME}/{orphan.name}"
    assert list(folder.iterdir()) == [orphan]


@pytest.mark.slow
def test_killed_between_registry_and_record_the_version_is_found_again(
    bench: Bench, expected: str
) -> None:
    """Faults 3 and 13: MLflow has the version, our record does not; the retry recognises its own
    write.
    """
    dead = start(child_dying, str(bench.home), "train_model", "commit")
    dead.join(60)
    assert dead.exitcode == -signal.SIGKILL
    assert len(versions(bench)) == 1
    assert bench.records.models.of(NAME) == []
    report = bench.run("train_model", KEY)
    assert (report.digest, report.outputs["version"]) == (expected, 1)
    assert [(report.outputs["version"], report.outputs["run_id"])] == versions(bench)


@pytest.mark.slow
def test_killed_before_the_alias_moves_the_old_champion_stays_and_the_next_run_resumes(
    bench: Bench,
) -> None:
    """Fault 5."""
    bench.judged(KEY)
    bench.release(1, KEY)
    mlflow_registry.mirror_aliases(bench.settings, NAME, bench.records.routes.get(NAME))
    bench.run("train_model", NEXT)
    dead = start(child_killed_at_alias, str(bench.home))
    dead.join(60)
    assert dead.exitcode == -signal.SIGKILL
    assert mlflow_registry.aliases(bench.settings, NAME) == {"champion": 1}
    assert bench.records.routes.get(NAME).champion == 1
    report = bench.run("evaluate_model", NEXT)
    assert (report.reused, report.outputs["verdict"]) == (True, "pass")
    assert mlflow_registry.aliases(bench.settings, NAME) == {"champion": 1, "challenger": 2}
    assert len(bench.records.audit.entries(NAME, action="model.challenger")) == 2
    assert len(bench.records.audit.entries(NAME, action="model.judged")) == 2


def child_killed_at_alias(home: str) -> None:
    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    mlflow_registry.mirror_aliases = die  # type: ignore[assignment]
    Bench(Path(home)).run("evaluate_model", NEXT)


@pytest.mark.slow
def test_two_trainings_at_once_are_two_versions_each_judged_against_the_champion_of_then(
    bench: Bench,
) -> None:
    """Fault 15."""
    both = [start(child, str(bench.home), "train_model", key) for key in (KEY, NEXT)]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(model.partition for model in bench.records.models.of(NAME)) == [KEY, NEXT]
    assert [number for number, _ in versions(bench)] == [1, 2]
    older, newer = bench.model(KEY), bench.model(NEXT)
    assert bench.run("evaluate_model", KEY).outputs["opponent"] is None
    bench.release(older.version, KEY)
    assert bench.run("evaluate_model", NEXT).outputs["opponent"] == older.version
    assert newer.model_digest != older.model_digest


FORKED = """
import os, signal, sys
import numpy as np, lightgbm
rows = np.random.default_rng(1).normal(size=(20000, 20))
data = lightgbm.Dataset(rows, (rows[:, 0] > 0).astype(float))
lightgbm.train({"objective": "binary", "num_threads": 2, "verbosity": -1}, data, num_boost_round=20)
lightgbm.train({"objective": "binary", "num_threads": 2, "verbosity": -1}, data,
    num_boost_round=2).predict(rows)
child = os.fork()
if child == 0:
    signal.alarm(240)
    from pathlib import Path
    from tests.builders.judging import Bench
    from include.models.loading import load_model
    bench = Bench(Path(sys.argv[1]))
    bench.run("train_model", "2026-02-05")
    model = bench.model("2026-02-05")
    load_model(model.bundle, model.model_digest).check_golden()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)
"""


@pytest.mark.slow
def test_a_fork_after_openmp_was_used_does_not_hang(bench: Bench) -> None:
    """Fault 22: we train and score on one thread, which needs nothing of the parent's thread
    pool.
    """
    words = [sys.executable, "-c", FORKED, str(bench.home)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_damaged_bundle_dies_in_the_trial_and_the_loaded_model_goes_on(bench: Bench) -> None:
    """Faults 62 to 64: what serves is in memory already, and the process that serves survives
    the offer.
    """
    bench.run("train_model", KEY)
    model = bench.model(KEY)
    serving = load_model(model.bundle, model.model_digest)
    before = serving.check_golden()
    text = Path(model.bundle) / "model.txt"
    whole = text.read_bytes()
    # LightGBM prints what it stumbles over, so the second one puts bytes that are no text into its
    # output.
    for damaged in (whole[: len(whole) // 2], whole.replace(b"objective=", b"objective=\x84\xff")):
        text.write_bytes(damaged)
        with pytest.raises(ArtefactError, match="recorded is"):
            try_bundle(model.bundle, model.model_digest)
        with pytest.raises((ArtefactError, Unavailable), match=r"trial was killed|trial load"):
            try_bundle(model.bundle, bundle.bundle_digest(model.bundle))
    (Path(model.bundle) / "model.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(ArtefactError, match="can run code"):
        try_bundle(model.bundle, model.model_digest)
    assert serving.check_golden() == before
