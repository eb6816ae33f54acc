"""Packaging: exact tags, nothing doubled, complete in itself, and a bundle of other pins in a
process of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from include.clock import utc_now
from include.errors import ArtefactError, Conflict, Unavailable
from include.installation.environment import MARK
from include.models.private_key import rotate
from include.models.public_keys import read_keys, revoke
from include.models.signing import BEGUN, signed_columns, verify
from include.packaging import package_model
from include.packaging.bento_build import end_users
from include.pipeline.stage import Outcome
from include.records.models import UPDATABLE
from include.records.records import Model
from tests.builders.ports import free_port
from tests.builders.serving import FIRST, NAME, NOW, ROW, Desk, bundle_files, until
from tests.builders.stopwatch import Stopwatch


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = Desk(tmp_path_factory.mktemp("bento"))
    made.ask(FIRST)
    return made


@pytest.fixture(scope="module")
def model(desk: Desk) -> Model:
    made = desk.train(1, pins="sha256:of another installation")
    desk.judge(made)
    return made


@pytest.fixture(scope="module")
def packaged(desk: Desk, model: Model) -> Outcome:
    return package(desk)


def package(desk: Desk) -> Outcome:
    with desk.context("package_model") as context:
        outcome = package_model.compute(context)
        assert package_model.effects(context, outcome) in (
            {},
            {"bento_tag": outcome.outputs.get("bento_tag")},
        )
        return outcome


def home(desk: Desk) -> Path:
    return desk.settings.home / "bento"


def bentoml(folder: Path, *words: str) -> str:
    environment = {**os.environ, "BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", *words],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_package_is_made_once(desk: Desk, packaged: Outcome) -> None:
    assert packaged.state == "done"
    tag = packaged.outputs["bento_tag"]
    assert [row["tag"] for row in json.loads(bentoml(home(desk), "list", "-o", "json"))] == [tag]
    assert Path(packaged.outputs["export"]).is_file()
    before = {path: path.stat().st_mtime_ns for path in home(desk).rglob("*") if path.is_file()}
    again = package(desk)
    assert (again.digest, again.outputs) == (packaged.digest, packaged.outputs)
    assert before == {
        path: path.stat().st_mtime_ns for path in home(desk).rglob("*") if path.is_file()
    }
    assert list((home(desk) / "staging").iterdir()) == []


def test_labels_pin_what_it_is(desk: Desk, model: Model, packaged: Outcome) -> None:
    import yaml

    name, version = packaged.outputs["bento_tag"].split(":")
    content = yaml.safe_load((home(desk) / "bentos" / name / version / "bento.yaml").read_text())
    assert content["labels"]["model_digest"] == content["args"]["digest"] == model.model_digest
    assert (
        content["services"][0]["models"][0]["tag"]
        == content["labels"]["model_tag"]
        == packaged.outputs["model_tag"]
    )
    assert (
        "lightgbm=="
        in (
            home(desk) / "bentos" / name / version / "env" / "python" / "requirements.txt"
        ).read_text()
    )


def test_the_export_runs_alone(tmp_path: Path, packaged: Outcome) -> None:
    bentoml(tmp_path, "import", packaged.outputs["export"])
    port = free_port()
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"}
    environment.pop("PYTHONPATH", None)
    with (tmp_path / "serve.log").open("wb") as output:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bentoml",
                "serve",
                packaged.outputs["bento_tag"],
                "--port",
                str(port),
                "--host",
                "127.0.0.1",
            ],
            env=environment,
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(ready, what="bentoml serve", seconds=60)
        golden = json.loads(bundle_files(1)["golden.json"])
        for row, score in zip(golden["rows"], golden["scores"], strict=True):
            answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"features": row})
            assert answer.json()["score"] == pytest.approx(score, abs=1e-9)
        wrong = httpx.post(
            f"http://127.0.0.1:{port}/predict", json={"features": {**ROW, "jobs": "two"}}
        )
        assert (wrong.status_code, "jobs" in wrong.text) == (400, True)
    finally:
        server.kill()
        end_users(tmp_path)
        server.wait(timeout=10)


def test_what_is_packaged_is_signed_and_again_once_its_key_signs_no_more(
    desk: Desk, model: Model, packaged: Outcome
) -> None:
    """By another key than its training: the signature of packaging is of what is packaged."""
    assert packaged.in_transaction is not None
    with desk.records.transaction() as session:
        packaged.in_transaction(session)
    signed = desk.records.models.get(NAME, 1)
    assert signed is not None
    assert signed.bento_digest is not None
    verify(signed, read_keys(desk.settings.signing_keys_folder))
    (row,) = desk.records.audit.entries(NAME, action="model.signed")
    assert (row.subject, row.details["partition"]) == ("1", FIRST)
    assert (row.details["key"], row.details["signature"]) == (
        signed.signing_key,
        signed.signature,
    )
    assert len(desk.records.audit.entries(action=BEGUN)) == 1
    with desk.context("package_model") as context:
        assert "signed_by" not in package_model.effects(context, packaged)
        new, _ = rotate(desk.settings, utc_now())
        assert package_model.effects(context, packaged)["signed_by"] == new
        assert "signed_by" not in package_model.effects(context, packaged)
    again = desk.records.models.get(NAME, 1)
    assert again is not None
    assert again.signing_key == new
    verify(again, read_keys(desk.settings.signing_keys_folder))
    assert len(desk.records.audit.entries(NAME, action="model.signed")) == 2
    assert desk.records.audit.verify() is None
    before = {name: getattr(model, name) for name in UPDATABLE}
    desk.records.models.update(NAME, 1, **before)  # for the tests below


def test_without_a_key_that_signs_nothing_is_built(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.ask(FIRST)
    model = desk.train(1)
    desk.judge(model)
    key = str(model.signing_key)
    revoke(desk.settings.signing_keys_folder, key, at=utc_now(), actor="anna", reason="lost")
    with pytest.raises(Conflict, match="is revoked and signs nothing"):
        package(desk)
    assert not home(desk).exists()


@pytest.mark.parametrize(
    ("mode", "target", "verdict", "reason"),
    [
        ("backfill", "judged", "pass", "recorded as backfill"),
        ("live", "judged", "pass", "has the target judged"),
        ("live", "deployed", "fail", "AUC too low"),
        ("live", "deployed", "hold", "the verdict is hold"),
    ],
)
def test_what_is_not_released_is_not_packaged(
    tmp_path: Path, mode: str, target: str, verdict: str, reason: str
) -> None:
    desk = Desk(tmp_path)
    desk.ask(FIRST, mode, target)
    desk.judge(desk.train(1), verdict)
    outcome = package(desk)
    assert (outcome.state, reason in outcome.reason) == ("skipped", True)
    assert not home(desk).exists()


def test_a_damaged_bundle_is_not_packaged(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.ask(FIRST)
    model = desk.train(1)
    desk.judge(model)
    (Path(model.bundle) / "model.pkl").write_bytes(b"x")
    with pytest.raises(ArtefactError, match=r"model\.pkl"):
        package(desk)
    (Path(model.bundle) / "model.pkl").unlink()
    (Path(model.bundle) / "model.txt").write_bytes(b"tree")
    with pytest.raises(ArtefactError, match="digest"):
        package(desk)


@pytest.mark.parametrize(
    ("written", "error", "said"),
    [
        ('{"error": "golden row 3 differs"}', ArtefactError, "is not packaged: golden row 3"),
        ('{"too_slow": "not ready after 90 s"}', Unavailable, "not ready after 90 s\nRun it again"),
        ("", Unavailable, "died or hung; its log ends with:\n  Killed"),
    ],
)
def test_a_slow_machine_is_no_damaged_model(
    tmp_path: Path, model: Model, written: str, error: type[Exception], said: str
) -> None:
    (tmp_path / "result.json").write_text(written)
    (tmp_path / "build.log").write_text("Killed\n")
    with pytest.raises(error, match=re.escape(said)):
        package_model._result(tmp_path, model)


def test_other_pins_are_served_in_a_process_of_their_own(
    desk: Desk, model: Model, packaged: Outcome
) -> None:
    """The Bento brings its own Predictor; the node asks it over a socket, and its end is noticed
    and mended.
    """
    tagged = desk.packaged_as(replace(model, bento_tag=packaged.outputs["bento_tag"]))
    digests = {"bento_digest": tagged.bento_digest, "artefact_digest": tagged.artefact_digest}
    digests |= signed_columns(desk.signed(tagged))
    desk.records.models.update(NAME, 1, bento_tag=tagged.bento_tag, **digests)
    desk.package(model)
    desk.publish({1: (NOW, ROW)})
    with desk.node() as node:
        assert desk.deploy().state == "done"
        node.serves(1)
        left = desk.settings.home / "serving"
        assert len(list(left.glob("code-*"))) == 1, "the copy that runs"
        expected = json.loads(bundle_files(1)["golden.json"])["scores"][0]
        assert node.predict(entity=1).body["score"] == pytest.approx(expected, abs=1e-9)
        assert node.get(f"/v1/{NAME}/model").body["champion"]["in_process"] is False
        assert node.predict(features={"income": 1.0}).body["error"]["field"] == "features.jobs"
        assert node.process is not None
        (isolated,) = psutil.Process(node.process.pid).children()
        assert str(desk.settings.home / "serving") in " ".join(isolated.cmdline())
        isolated.kill()
        until(lambda: node.predict(entity=1).status == 200, what="a new process")
        (other,) = psutil.Process(node.process.pid).children()
        assert other.pid != isolated.pid
        other.suspend()  # it hangs: the deadline answers, not the user's patience
        stopwatch = Stopwatch()
        assert node.predict(entity=1).status == 503
        assert stopwatch.seconds < 1
        other.resume()
        until(lambda: node.predict(entity=1).status == 200, what="an answer after the pause")
        node.process.kill()
        until(lambda: gone(other), what="the end of the node's children")


@pytest.mark.slow
def test_a_damaged_package_is_made_again(desk: Desk, packaged: Outcome) -> None:
    name, version = packaged.outputs["bento_tag"].split(":")
    source = home(desk) / "bentos" / name / version / "src" / "service.py"
    text = source.read_text()
    source.write_text(text + "\n# changed\n")
    assert package(desk).digest == packaged.digest
    assert source.read_text() == text
    assert len(json.loads(bentoml(home(desk), "list", "-o", "json"))) == 1


@pytest.fixture(scope="module", autouse=True)
def _no_orphans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    mine = str(tmp_path_factory.getbasetemp())
    left = [
        one.info
        for one in psutil.process_iter(["pid", "cmdline", "environ"])
        # Of BentoML alone: an installation of the end-to-end tests may live beside, on this worker.
        if (one.info["environ"] or {}).get("BENTOML_HOME", "").startswith(mine)
        and MARK not in one.info["environ"]
    ]
    assert [one["cmdline"] for one in left if one["pid"] != os.getpid()] == []


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
