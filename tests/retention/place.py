"""A home with models on record whose files are small, as packaging and training leave them."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.lake.tables import Lake
from include.records.audit import AuditEntry
from include.records.records import Model, Records, Release, StageResult
from include.retention import collect_garbage
from include.retention.collect_garbage import Collected
from tests.builders.serving import NAME, YAML

NOW = utc_now()
LATER = NOW + timedelta(days=3)  # by then all that a test has written is old


def case(newest: int = 2, more: str = "") -> UseCase:
    """Return a use case that keeps so many of the newest models."""
    text = YAML.format(
        name=NAME, last="2026-03-31", unknown="refuse", stale="refuse", store="refuse"
    )
    return parse(f"{text}retention: {{models: {newest}}}\n{more}")


def digest(version: int) -> str:
    """Return the digest of a version's bundle."""
    return "sha256:" + hashlib.sha256(str(version).encode()).hexdigest()


class Home:
    """One home; `train` puts versions on record with their files, `collect` collects."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        self.lake = Lake(self.settings.lake_root)

    def train(self, *versions: int, **changes: Any) -> None:
        """Record versions, each of the partition of its number, with bundle and package."""
        for version in versions:
            folder = self.folder(version)
            (folder / "bundle").mkdir(parents=True)
            (folder / "bundle" / "model.txt").write_text(f"model {version}")
            (folder / "reference.parquet").write_text("rows")
            self.package(version)
            values: dict[str, Any] = {
                "manifest": {},
                "bento_tag": f"{NAME}_scorer:{self.tag(version)}",
                **changes,
            }
            self.records.models.add(
                Model(
                    NAME,
                    version,
                    digest(version),
                    self.key(version),
                    NOW,
                    "live",
                    "fs",
                    str(folder / "bundle"),
                    **values,
                )
            )

    def package(self, version: int, code: str = "aaaaaaaa") -> None:
        """Write the files of a version's package."""
        for path in self.packages(version, code):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("packaged")

    def key(self, version: int) -> str:
        """Return the partition of a version."""
        return f"2026-03-{version:02d}"

    def tag(self, version: int, code: str = "aaaaaaaa") -> str:
        """Return the tag of a version's package."""
        return f"{digest(version).removeprefix('sha256:')[:16]}-{code}"

    def folder(self, version: int) -> Path:
        """Return the folder of a version's files."""
        name = digest(version).removeprefix("sha256:")[:16]
        return self.settings.home / "models" / NAME / self.key(version) / name

    def packages(self, version: int, code: str = "aaaaaaaa") -> list[Path]:
        """Return a file of each part of a version's package."""
        tag, home = self.tag(version, code), self.settings.home / "bento"
        return [
            home / "bentos" / f"{NAME}_scorer" / tag / "service.py",
            home / "models" / f"{NAME}_model" / tag / "model.txt",
            home / "exports" / f"{NAME}_scorer-{tag}.bento",
            home / "receipts" / f"{NAME}-{tag}.json",
        ]

    def release(self, version: int, **more: Any) -> None:
        """Make a version champion, and the one before it previous."""
        route = self.records.routes.get(NAME)
        self.records.routes.change(
            NAME,
            set={"champion": version, "previous": route.champion, **more},
            entry=self.entry("release.promoted"),
        )

    def request(self, version: int, *, wait: bool = False) -> Release:
        """Request the release of a version, or let it wait."""
        route, model = self.records.routes.get(NAME), self.records.models.get(NAME, version)
        assert model is not None
        releases = self.records.releases
        start = releases.wait if wait else releases.request
        return start(
            NAME,
            partition=self.key(version),
            model=model,
            opponent=route.champion,
            judged_generation=route.generation,
            plan={"steps": [], "watch": 60.0},
            description=None,
            entry=self.entry("release.requested"),
        )

    def roll_back(self) -> None:
        """Roll the champion back."""
        self.records.routes.rollback(NAME, entry=self.entry("release.rolled_back"))

    def entry(self, action: str) -> AuditEntry:
        """Return an audit entry."""
        return AuditEntry(action, NAME, "x", "test", {}, NOW)

    def record(self, stage: str, version: int, **outputs: Any) -> None:
        """Record what a stage came to for the partition of a version."""
        key = self.key(version)
        with self.records.leases.claim(NAME, stage, key, owner="t", attempt=1, ttl=30) as lease:
            self.records.results.commit(
                lease,
                StageResult(
                    NAME, key, stage, "done", "d", "", outputs, [], "", "live", NOW, NOW, 0.0, "g"
                ),
            )

    def collect(self, newest: int = 2, **options: Any) -> Collected:
        """Collect, three days from now."""
        given = {"at": LATER, "actor": "test", **options}
        return collect_garbage.collect(self.settings, self.records, case(newest), **given)

    def there(self) -> list[int]:
        """Return the versions whose files are there."""
        versions = [model.version for model in self.records.models.of(NAME)]
        return [each for each in versions if (self.folder(each) / "bundle" / "model.txt").exists()]

    def collected(self) -> list[int]:
        """Return the versions that the records call collected."""
        models = self.records.models.of(NAME)
        return [model.version for model in models if model.collected_at is not None]

    def files(self) -> dict[str, bytes]:
        """Return every file of the home but the databases."""
        return {
            str(path.relative_to(self.settings.home)): path.read_bytes()
            for path in sorted(self.settings.home.rglob("*"))
            if path.is_file() and not path.name.startswith("records.db")
        }

    def write_lake(self, table: str, value: int, key: str = "2026-03-01") -> int:
        """Replace a partition of a lake table; return the version."""
        return self.lake.replace(f"{NAME}/{table}", key, pa.table({"x": [value]}))
