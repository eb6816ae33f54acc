"""The rows of a training: what is known at as_of, bounded, and of both classes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from include.config.use_case_file import parse
from include.errors import EvergreenError
from include.features import feature_sets, frames
from include.pipeline.training_outputs import Counts, PartCount
from include.training import training_rows
from tests.builders import stored
from tests.builders.command_line import YAML
from tests.builders.judging import KEY, NAME, ROWS, Bench
from tests.builders.remedy_lines import offered, pasted


def test_nothing_younger_than_its_delay_or_after_as_of_is_trained_on(bench: Bench) -> None:
    bench.run("train_model", KEY)
    rows = bench.lake.read(stored.table(bench.lake, f"{NAME}/training_set"), keys=[KEY])
    newest = max(rows["event_timestamp"].to_pylist())
    assert newest == datetime(2026, 2, 3, 12, tzinfo=UTC), (
        "decisions of 4 February at noon mature only after 6 February, 00:00"
    )
    assert bench.result_counts(KEY)["immature"] == 90


def test_the_newest_decisions_have_their_own_rows_though_those_arrived_after_midnight(
    bench: Bench,
) -> None:
    """The view comes with the request, so serving has these values whenever the row arrives."""
    (view,) = feature_sets.current(bench.use_case).views
    rows = bench.lake.read(view.table(NAME)).drop_columns(["partition"])
    arrived = pc.add(rows["event_timestamp"], timedelta(hours=13))  # decisions are made at noon
    rows = rows.set_column(2, "created_timestamp", arrived)
    bench._put(view.table(NAME), rows, arrived.to_numpy().astype("datetime64[us]"))
    bench.run("train_model", KEY)
    trained = bench.lake.read(stored.table(bench.lake, f"{NAME}/training_set"), keys=[KEY])
    newest = trained.filter(
        pc.equal(trained["event_timestamp"], pc.max(trained["event_timestamp"]))
    )
    assert len(newest) == ROWS
    assert newest["visits"].null_count == 0


def test_max_rows_and_window_bound_the_rows(bench: Bench) -> None:
    text = (bench.home / "usecases" / "visits.yaml").read_text()
    (bench.home / "usecases" / "visits.yaml").write_text(
        text.replace("training: {", "training: {max_rows: 1000, window: 20d, ")
    )
    report = bench.run("train_model", KEY)
    assert report.outputs["training_set"]["rows"] + report.outputs["counts"]["embargoed"] == 1000
    rows = bench.lake.read(stored.table(bench.lake, f"{NAME}/training_set"), keys=[KEY])
    assert min(rows["event_timestamp"].to_pylist()) >= datetime(2026, 1, 17, tzinfo=UTC)


def test_lost_rows_in_the_join_are_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = frames.training_frame
    monkeypatch.setattr(
        frames, "training_frame", lambda *arguments, **named: honest(*arguments, **named).slice(1)
    )
    with pytest.raises(EvergreenError, match="rows for"):
        bench.run("train_model", KEY)


def test_a_single_class_is_no_candidate(bench: Bench) -> None:
    bench.write(lambda columns: columns.update(label=np.ones_like(columns["label"])))
    reason = bench.run("train_model", KEY).reason
    assert "0 of class 0" in reason
    for line in offered(reason):
        pasted((bench.home / "usecases" / "visits.yaml").read_text(), line)


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"mature": 50, "evaluation": (30, 3)}, "gates: {min_rows: 3}"),
        (
            {"mature": 50, "evaluation": (30, 30)},
            "training: {split: {tune: 0.25, evaluation: 0.35}}",
        ),
        ({"mature": 0, "immature": 50}, "history: {last: 2025-03-10}"),
        ({"mature": 90, "evaluation": (80, 40), "embargoed": 9}, "training: {embargo: 0s}"),
    ],
)
def test_too_few_rows_name_the_line_that_gives_more_or_lets_fewer_do(
    counts: dict[str, Any], line: str
) -> None:
    parts = {
        name: PartCount(rows=rows, positive=ones)
        for name in ("train", "tune", "evaluation")
        for rows, ones in [counts.pop(name, (0, 0))]
    }
    reason = training_rows.describe_lacking_class(parse(YAML), Counts(**parts, **counts))
    assert offered(reason)[0] == line
    for each in offered(reason):
        pasted(YAML, each)
