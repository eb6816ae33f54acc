"""A small installation in a folder of its own, driven through the runner: what the tests of
whole days share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from include.clock import utc_now
from include.config.settings import ROOT, Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.lake.digests import digest
from include.lake.tables import Lake
from include.pipeline import execution, ranges, runner
from include.pipeline.flow import DATA_STAGES
from include.point_in_time import partitions
from include.records.records import Mode, Records, StageResult, Target

TO_JUDGEMENT = (*DATA_STAGES, "train_model", "evaluate_model")
CONTENT = re.compile(r"/(raw|quarantine|curated|features|labels)(/|@|$)")


def small_repayment(folder: Path, customers: int = 300, **replacements: str) -> None:
    """Write the shipped repayment use case for few customers; `replacements` are whole top-level
    lines by field.
    """
    text = (ROOT / "include" / "usecases" / "repayment.yaml").read_text()
    text = re.sub(
        r"simulator: \{stream: (\w+)\}",
        rf"simulator: {{stream: \1, customers: {customers}}}\n    max_bad: 0.3",
        text,
    )
    text = re.sub(
        r"^gates:.*$",
        "gates: {min_auc: 0.6, min_rows: 20, max_calibration_error: 0.3}",
        text,
        flags=re.MULTILINE,
    )
    for field, line in replacements.items():
        text = re.sub(rf"^{field}:.*$", f"{field}: {line}", text, flags=re.MULTILINE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "repayment.yaml").write_text(text)


class Installation:
    """One home with migrated records and a use cases folder."""

    def __init__(self, home: Path, use_case: str = "repayment", **settings: Any) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.settings = Settings(home=home, usecases=str(home / "usecases"), **settings)
        self.name = use_case
        self.records = Records.open(self.settings.records_address)
        self.records.migrate()
        self.lake = Lake(self.settings.lake_root)

    @property
    def use_case(self) -> UseCase:
        """The use case as its file says now."""
        return find(self.name, self.settings.usecase_dirs)

    def ask(self, key: str, mode: Mode = "backfill", target: Target = "judged") -> None:
        """Record that a partition is wanted."""
        self.records.partitions.raise_to(
            self.name, key, mode=mode, target=target, actor="test", at=utc_now()
        )

    def run(
        self,
        stage: str,
        key: str,
        *,
        mode: Mode = "backfill",
        target: Target = "judged",
        **options: Any,
    ) -> execution.Report:
        """Run one stage for one partition."""
        self.ask(key, mode, target)
        return runner.run(stage, self.name, key, settings=self.settings, **options)

    def day(
        self, key: str, stages: Iterable[str] = TO_JUDGEMENT, **options: Any
    ) -> dict[str, execution.Report]:
        """Run several stages for one partition."""
        return {stage: self.run(stage, key, **options) for stage in stages}

    def load(
        self, first: str, last: str, stages: Iterable[str] = DATA_STAGES, **options: Any
    ) -> list[execution.Report]:
        """Load a range in one pass a stage."""
        keys = self.keys(first, last)
        for key in keys:
            self.ask(key, target="data")
        return [
            report
            for stage in stages
            for report in ranges.run_range(
                stage, self.name, keys, settings=self.settings, **options
            )
        ]

    def keys(self, first: str, last: str) -> list[str]:
        """Return the keys between two, both included."""
        return partitions.between(self.use_case, first, last)

    def result(self, stage: str, key: str) -> StageResult:
        """Return a recorded result."""
        found = self.records.results.get(self.name, key, stage)
        assert found is not None, f"{stage} {key} is not recorded"
        return found

    def tables(self) -> list[str]:
        """Return the lake tables of the use case."""
        root = Path(self.settings.lake_root)
        return sorted(
            str(path.parent.relative_to(root)) for path in (root / self.name).rglob("_delta_log")
        )

    def digests(self, keys: Sequence[str] | None = None) -> dict[tuple[str, str], str]:
        """Return a digest of the content of every partition of every data table."""
        found: dict[tuple[str, str], str] = {}
        for table in self.tables():
            if not CONTENT.search(table):
                continue
            for key in self.lake.keys(table):
                if keys is None or key in keys:
                    rows = self.lake.read(table, keys=[key])
                    found[table, key] = digest(rows, sort_by=sorted(rows.column_names)[:1])
        return found

    def live_state(self) -> tuple[Any, ...]:
        """Return everything that serves: the routing row, online watermarks and the bytes of the
        online rows.
        """
        online = Path(self.settings.home) / "online" / f"{self.name}.db"
        sets = [
            (one.version, self.records.feature_sets.online(self.name, one.version))
            for one in self.records.feature_sets.of(self.name)
        ]
        return (self.records.routes.get(self.name), sets, _rows(online))


def _rows(path: Path) -> Any:
    import sqlite3

    if not path.exists():
        return None
    with sqlite3.connect(path) as con:
        tables = [
            name
            for (name,) in con.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
        ]
        return [
            (table, sorted(map(repr, con.execute(f'SELECT * FROM "{table}"')))) for table in tables
        ]
