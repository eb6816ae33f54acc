"""The scored table: who is scored by which model, and a CSV that no spreadsheet runs."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import ConfigError, EvergreenError, SourceError
from include.lake.tables import Lake
from include.lake.vacuum import tables_below
from include.point_in_time.curated import scores_table
from include.records.records import AuditEntry, Model, Records
from include.scoring import score_entities
from tests.builders.judging import NOW, visits_use_case
from tests.builders.shop import DAY as ONE_DAY
from tests.builders.shop import T0, Shop, run_days

DAY = "2026-01-01"


def test_exported_cells_are_never_formulas(tmp_path: Path) -> None:
    texts = [
        "=cmd|' /C calc'!A0",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "  =1",
        "plain",
        "a=b",
        '"q"',
        None,
    ]
    path = tmp_path / "scores.csv"
    score_entities.export(
        path, pa.table({"who": texts, "score": [-0.5] * len(texts), "=head": texts})
    )
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["who", "score", "'=head"]
    assert [row[0] for row in rows] == [f"'{text}" for text in texts[:6] if text] + [
        "plain",
        "a=b",
        '"q"',
        "",
    ]
    assert {row[1] for row in rows} == {"-0.5"}
    assert not list(tmp_path.glob(".scores*"))


def test_a_csv_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SourceError, match=r"cannot be written .*--output"):
        score_entities.export(tmp_path / "taken" / "scores.csv", pa.table({"a": [1]}))
    assert os.listdir(tmp_path) == ["taken"]


class Scorer:
    """A predictor that gives what it is told."""

    schema = None

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def many(self, columns: Any) -> Any:
        return np.array(self.scores)


@pytest.fixture
def use_case() -> UseCase:
    return visits_use_case()


def model(version: int) -> Model:
    return Model("visits", version, f"sha256:{version}", "2026-01-01", NOW, "live", "f", "")


def entities(count: int) -> pa.Table:
    times = pa.array([NOW] * count, pa.timestamp("us", tz="UTC"))
    return pa.table({"customer_id": pa.array(range(count), pa.int64()), "event_timestamp": times})


def test_each_score_has_its_decision_and_its_model(
    use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_entities, "columns_of", lambda frame, schema: frame)
    threshold = use_case.decision.threshold
    scorer: Any = Scorer([threshold, threshold - 0.01])
    rows = score_entities._score_rows(use_case, entities(2), scorer, model(3))
    assert rows.column_names == [
        "customer_id",
        "event_timestamp",
        "score",
        "decision",
        "version",
        "model_digest",
    ]
    decisions = [use_case.decision.at_or_above, use_case.decision.below]
    assert rows["decision"].to_pylist() == decisions, "the threshold itself is reached"
    assert set(rows["version"].to_pylist()) == {3}
    nobody = score_entities._score_rows(use_case, entities(0), scorer, model(3))
    assert (len(nobody), nobody.schema) == (0, rows.schema)


@pytest.mark.parametrize("scores", [[0.5, float("nan")], [0.5]], ids=["no number", "too few"])
def test_a_model_that_gives_no_numbers_writes_nothing(
    use_case: UseCase, monkeypatch: pytest.MonkeyPatch, scores: list[float]
) -> None:
    monkeypatch.setattr(score_entities, "columns_of", lambda frame, schema: frame)
    scorer: Any = Scorer(scores)
    with pytest.raises(EvergreenError, match=r"version 3 gave . scores that are no numbers"):
        score_entities._score_rows(use_case, entities(2), scorer, model(3))


def test_who_has_left_gets_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of their features are null; the node refuses them, and so it does who is unknown."""
    shop = Shop(tmp_path)
    run_days(shop, 2)  # customer 2 visited on the second day, and never again
    for day in range(2, 8):
        shop.arrive(day, [(day, 1, 1.0, T0 + day * ONE_DAY, T0 + day * ONE_DAY)])
        shop.run(day)
    scorer: Any = SimpleNamespace(
        schema=None, check_golden=lambda: None, many=lambda frame: np.full(len(frame), 0.5)
    )
    champion = replace(model(1), use_case="shop", feature_set=shop.feature_set.version)
    shop.records.models.add(champion)
    monkeypatch.setattr(score_entities, "columns_of", lambda frame, schema: frame)
    monkeypatch.setattr(score_entities, "find_bundle", lambda store, model: tmp_path)
    monkeypatch.setattr(score_entities, "load_model", lambda path, digest: scorer)
    for day, customers in ((1, [1, 2]), (7, [1])):
        made = score_entities.score(
            shop.use_case,
            shop.key(day),
            settings=shop.settings,
            records=shop.records,
            version=1,
        )
        (table,) = [name for name in tables_below(shop.lake, "shop") if "/scores" in name]
        rows = shop.lake.read(table, keys=[shop.key(day)])
        assert (made.rows, sorted(rows["customer_id"].to_pylist())) == (len(customers), customers)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records.open(Settings(home=tmp_path).records_address)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def serve(records: Records, version: int) -> None:
    entry = AuditEntry("test", "visits", "route", "test", {}, utc_now())
    records.routes.change("visits", set={"champion": version}, entry=entry)


def test_a_model_is_the_champion_or_the_one_that_is_named(
    use_case: UseCase, records: Records, lake: Lake
) -> None:
    with pytest.raises(ConfigError, match="visits has no champion yet"):
        score_entities.find_model(records, lake, use_case, DAY)
    records.models.add(model(1))
    records.models.add(model(2))
    assert score_entities.find_model(records, lake, use_case, DAY, 1).version == 1
    with pytest.raises(ConfigError, match=r"no model version 3; there are \[1, 2\]"):
        score_entities.find_model(records, lake, use_case, DAY, 3)
    serve(records, 2)
    assert score_entities.find_model(records, lake, use_case, DAY).version == 2


def test_a_partition_that_is_scored_again_has_the_model_of_before(
    use_case: UseCase, records: Records, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_entities, "columns_of", lambda frame, schema: frame)
    scorer: Any = Scorer([0.5, 0.25])
    for version in (1, 2):
        records.models.add(model(version))
    rows = score_entities._score_rows(use_case, entities(2), scorer, model(1))
    lake.replace(scores_table(lake, use_case, rows.schema), DAY, rows)
    serve(records, 2)
    assert score_entities.find_model(records, lake, use_case, DAY).version == 1
    assert score_entities.find_model(records, lake, use_case, DAY, 2).version == 2
    assert score_entities.find_model(records, lake, use_case, "2026-01-02").version == 2
    other = replace(model(1), model_digest="sha256:of before a reset")
    rows = score_entities._score_rows(use_case, entities(2), scorer, other)
    lake.replace(scores_table(lake, use_case, rows.schema), DAY, rows)
    assert score_entities.find_model(records, lake, use_case, DAY).version == 2


def test_a_backfill_is_scored_by_the_champion_of_then(
    use_case: UseCase, records: Records, lake: Lake
) -> None:
    for version, key, state in [
        (1, "2026-01-03", "released"),
        (2, "2026-01-01", "released"),
        (3, "2026-01-05", "retired"),
        (4, "2026-01-05", "candidate"),
        (5, "2026-01-09", "released"),
    ]:
        records.models.add(replace(model(version), partition=key, state=cast(Any, state)))
    serve(records, 5)
    for key, version in [("2026-01-02", 2), ("2026-01-06", 1), ("2026-01-09", 5)]:
        raise_to(records, key, "backfill")
        assert score_entities.find_model(records, lake, use_case, key).version == version
    raise_to(records, "2025-12-31", "backfill")
    with pytest.raises(ConfigError, match=r"no model of 2025-12-31 or before .* --version"):
        score_entities.find_model(records, lake, use_case, "2025-12-31")
    raise_to(records, "2026-01-06", "live")
    assert score_entities.find_model(records, lake, use_case, "2026-01-06").version == 5


def raise_to(records: Records, key: str, mode: Any) -> None:
    records.partitions.raise_to(
        "visits", key, mode=mode, target="judged", actor="test", at=utc_now()
    )
