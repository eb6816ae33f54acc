"""A history that an earlier version recorded is opened by this one: what it says stays, and
comes out the same again.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from pathlib import Path

import pytest

from include.pipeline import status
from include.pipeline.flow import STAGES
from tests.builders.installation import DATA_STAGES, Installation
from tests.builders.ports import free_port
from tests.history.past import again, cpu, digests

FOLDER = Path(__file__).parent / "recorded"
HOME = "/srv/evergreen"  # where it was recorded: models are kept under absolute paths


@pytest.fixture(
    params=sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))
)
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    """Unpack what a version recorded, named by the revision of its records, into a home and
    migrate it.
    """
    with tarfile.open(FOLDER / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    with sqlite3.connect(tmp_path / "records.db") as con:
        assert con.execute("SELECT version_num FROM evergreen_version").fetchone() == (
            request.param,
        )
    for file in ("records.db", "mlflow.db"):
        _move(tmp_path / file, str(tmp_path))
    return Installation(tmp_path, "repayment", node_port=free_port())


def _move(file: Path, home: str) -> None:
    with sqlite3.connect(file) as con:
        for (table,) in con.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall():
            for column in [
                name
                for _, name, kind, *_ in con.execute(f"PRAGMA table_info({table})")
                if kind != "INTEGER"
            ]:
                if table != "audit":  # is hashed
                    con.execute(
                        f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE {column} "
                        "LIKE ?",
                        (HOME, home, f"%{HOME}%"),
                    )


@pytest.mark.slow
def test_what_an_earlier_version_recorded_stays_and_comes_out_the_same_again(
    earlier: Installation,
) -> None:
    expected = json.loads((FOLDER / "digests.json").read_text())
    same_cpu = expected.pop("cpu") == cpu()
    assert earlier.records.audit.verify() is None
    assert digests(earlier) == expected
    rows = status.rows(
        earlier.name,
        partitions=earlier.records.partitions.of(earlier.name),
        results=earlier.records.results.of(earlier.name),
        running={},
    )
    assert not [row for row in rows if row.kind == "stale"], "a migration makes nothing stale"
    before = earlier.live_state()
    again(earlier, STAGES if same_cpu else DATA_STAGES)
    assert digests(earlier) == expected
    assert earlier.live_state() == before, "what serves goes on serving"
