"""The whole chain with records and MLflow on one PostgreSQL database: what a cluster would run,
in one process and a node.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from include.models import mlflow_registry
from include.pipeline.flow import STAGES
from tests.builders.installation import TO_JUDGEMENT, Installation
from tests.builders.ports import free_port
from tests.builders.serving import Node, until
from tests.e2e.conftest import YAML, write_data

KEY = "2026-03-26"
HISTORY = ("2026-03-01", "2026-03-25")


def visits(home: Path) -> Installation:
    write_data(home / "usecases" / "data", date.fromisoformat(KEY))
    text = YAML.format(name="visits", history=f"{{first: {HISTORY[0]}, last: {KEY}}}")
    (home / "usecases" / "visits.yaml").write_text(text)
    made = Installation(home, "visits", node_port=free_port())
    made.load(*HISTORY)
    return made


@pytest.fixture
def made(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    url = postgres_url.replace("postgresql+psycopg://", "postgresql://")  # as people write it
    monkeypatch.setenv("EVERGREEN_RECORDS_URL", url)
    monkeypatch.setenv("EVERGREEN_MLFLOW_URI", url)
    installation = visits(tmp_path / "postgresql")
    yield installation
    installation.records.close()


@pytest.mark.slow
def test_from_the_files_to_an_answer_and_back_to_its_drift(
    made: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(made.settings)
    node.start()
    try:
        done = made.day(KEY, STAGES, mode="live", target="deployed")
        drift = done.pop("check_drift")
        assert {stage: report.state for stage, report in done.items()} == dict.fromkeys(
            done, "done"
        )
        assert drift.outputs["reference"] == {
            "kind": "before",
            "partition": HISTORY[1],
            "version": None,
        }
        assert "fewer than 50 rows" in drift.reason, "forty visits a day are too few to tell"
        until(
            lambda: node.post("/v1/visits/predict", json={"entity": 7}).status == 200,
            what="an answer",
        )
    finally:
        node.stop()
    again = made.day(KEY, TO_JUDGEMENT, mode="live", target="deployed")
    assert {stage: report.digest for stage, report in again.items()} == {
        stage: done[stage].digest for stage in TO_JUDGEMENT
    }
    route = made.records.routes.get("visits")
    assert (route.champion, route.challenger, route.watermark) == (1, None, KEY)
    assert mlflow_registry.aliases(made.settings, "visits") == {"champion": 1}
    assert made.records.audit.verify() is None

    home = made.settings.home
    assert not {path.name for path in home.rglob("*.db")} & {"records.db", "mlflow.db"}
    assert list((home / "mlartifacts" / "visits").rglob("manifest.json"))

    for name in ("EVERGREEN_RECORDS_URL", "EVERGREEN_MLFLOW_URI"):
        monkeypatch.delenv(name)
    embedded = visits(tmp_path / "sqlite")
    assert embedded.settings.records_address.startswith("sqlite:")
    same = embedded.day(KEY, TO_JUDGEMENT, mode="live", target="deployed")
    assert {stage: report.digest for stage, report in same.items()} == {
        stage: done[stage].digest for stage in TO_JUDGEMENT
    }
