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
# Of before the calibration was rounded: another processor gives its models other last digits.
DATA_ALONE = ("0003",)


@pytest.fixture(
    params=sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))
)
def revision(request: pytest.FixtureRequest) -> str:
    """A revision of the records of which there is a history."""
    return str(request.param)


@pytest.fixture
def earlier(revision: str, tmp_path: Path) -> Installation:
    """Unpack what a version recorded into a home and migrate it."""
    with tarfile.open(FOLDER / f"{revision}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    with sqlite3.connect(tmp_path / "records.db") as con:
        assert con.execute("SELECT version_num FROM evergreen_version").fetchone() == (revision,)
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
    earlier: Installation, revision: str
) -> None:
    expected = json.loads((FOLDER / f"{revision}.json").read_text())
    is_all = expected.pop("cpu") == cpu() and revision not in DATA_ALONE
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
    again(earlier, STAGES if is_all else DATA_STAGES)
    assert digests(earlier) == expected
    assert earlier.live_state() == before, "what serves goes on serving"
