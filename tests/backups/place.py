"""An installation with a trained, judged and serving model, and places that it can go to."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from include.artefacts.store import ArtefactStore
from include.backups import after
from include.backups import restore as restoring
from include.backups import take as taking
from include.backups.manifest import Manifest, Piece
from include.backups.repository import InPlace, Repository
from include.backups.restore import Restored
from include.cli import backups as commands
from include.clock import utc_now
from include.config.settings import Settings
from include.models.loading import load_model
from include.models.presence import find_bundle
from include.models.signing import sign_here, signed_columns
from include.records.records import AuditEntry, Records, Window
from tests.builders.judging import LATE, MIDDLE, NAME, Bench, new_bench
from tests.builders.mlflow_database import copy_database

ROW = {"income": 1200.5, "visits": 2, "region": "r2"}
STAGES = ("train_model", "evaluate_model")


def trained(home: Path) -> Bench:
    """Return an installation with two models, of which the newer is champion."""
    bench = new_bench(home)
    bench.write(recorded=60)
    for key in (MIDDLE, LATE):
        for stage in STAGES:
            bench.run(stage, key)
    for model in bench.records.models.of(NAME):
        signed = sign_here(bench.settings, model, at=utc_now(), signed_as="packaging")
        bench.records.models.update(NAME, model.version, **signed_columns(signed))
    entry = AuditEntry("release.promoted", NAME, "2", "test", {}, utc_now())
    bench.records.routes.change(NAME, set={"champion": 2, "previous": 1}, entry=entry)
    _release(bench.records)
    segment = home / "predictions" / NAME / "one.jsonl"
    segment.parent.mkdir(parents=True)
    segment.write_text('{"answer": 1}\n')
    segment.with_name("two.open").write_text('{"answer": 2}\n')
    return bench


def _release(records: Records) -> None:
    """Leave a release under way, with all that is reported of one."""
    model = records.models.get(NAME, 1)
    assert model is not None

    def entry(action: str) -> AuditEntry:
        return AuditEntry(f"release.{action}", NAME, "1", "test", {}, utc_now())

    releases = records.releases
    release = releases.request(
        NAME,
        partition=model.partition,
        model=model,
        opponent=2,
        judged_generation=1,
        plan={"steps": [{"share": 500}], "watch": 60.0},
        description=None,
        entry=entry("requested"),
    )
    release = releases.begin(release, entry("begun"))
    release = releases.note(release, {"word": "hold"}, entry("judged"))
    counts = {"clusters": [[1, 0], [2, 1]], "entities": "AAAA"}
    window = Window(NAME, release.id, 0, "challenger", "champion", "n1", "b1", 29_000_000, counts)
    releases.put_windows([window, dataclasses.replace(window, boot="b2", closed=True)])
    releases.put_gathered(release, "parity", "", {"reason": "nothing is online"})
    releases.latch(NAME, release.id, "n1", "b1", "errors")
    releases.beat(NAME, release.id, 180.0)
    releases.freeze(NAME, utc_now() + timedelta(days=400), entry("frozen"))


def take(bench: Bench, repository: Repository, **options: Any) -> Manifest:
    """Take a backup, and put it in place."""
    manifest = taking.take(
        bench.settings,
        bench.records,
        repository,
        at=utc_now(),
        actor="test",
        say=lambda line: None,
        **options,
    )
    repository.write(manifest)
    return manifest


def back_up(target: str | Path, *, keep: int = 0, verify: bool = False) -> int:
    """Run the command in this process; return its exit code."""
    try:
        commands.backup(str(target), keep=keep, verify=verify)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


class Target:
    """An installation that is restored into."""

    def __init__(self, home: Path, usecases: str, **settings: Any) -> None:
        self.settings = Settings(home=home, usecases=usecases, **settings)
        self.settings.make_home()
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        self.said: list[str] = []
        if "mlflow_uri" not in settings and not (home / "mlflow.db").exists():
            copy_database(home)  # its own migrations take seconds

    def restore(self, repository: Repository, manifest: Manifest | None = None) -> Restored:
        """Restore a backup, by default the newest."""
        made = restoring.restore(
            self.settings,
            self.records,
            repository,
            manifest or repository.manifest(),
            at=utc_now(),
            actor="test",
            say=self.said.append,
            origin="a backup",
        )
        after.examine_champions(self.settings, self.records, made)
        return made

    def score(self) -> float:
        """Return what the champion says of a row, its bundle loaded by its digest."""
        return score(self.records, self.settings)


def score(records: Records, settings: Settings) -> float:
    """Return what the champion of some records says of a row."""
    champion = records.serving_rows().rows[0].model("champion")
    assert champion is not None
    folder = find_bundle(ArtefactStore.of(settings), champion)
    return float(load_model(folder, champion.model_digest).one(ROW))


KILLED_AT = ("files", "between the databases", "in the records")


def kill(patched: pytest.MonkeyPatch, pieces: type[Repository] | type[InPlace], at: str) -> None:
    """Let what reads `pieces` be killed at a moment of `KILLED_AT`."""
    if at == "files":
        real, opened = pieces.open, 0

        def opening(self: Any, piece: Piece) -> object:
            nonlocal opened
            opened += 1
            if opened > 30:
                raise KeyboardInterrupt
            return real(self, piece)

        patched.setattr(pieces, "open", opening)
        return

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    name = "_load_records" if at == "between the databases" else "begin_next"
    patched.setattr(restoring, name, stop)
