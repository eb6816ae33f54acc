"""Training: splits, determinism, leaks, what is recorded, and what happens when it is done
twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import parse
from include.config.use_case_model import Split
from include.errors import ConfigError, EvergreenError, MissingPartition, SourceError
from include.models import matrix, mlflow_registry, predictor
from include.training import fitting, leaks, splits
from tests.builders import stored
from tests.builders.judging import KNOBS, NAME, YAML, Bench, new_bench, simulate

KEY = "2026-02-05"
DAY = 86_400_000_000


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = new_bench(tmp_path_factory.mktemp("base") / "home")
    made.write()
    return made


@pytest.fixture
def bench(base: Bench, tmp_path: Path) -> Bench:
    return base.copy(tmp_path / "home")


def use_case(**knobs: Any) -> UseCase:
    return parse(YAML.format(**{**KNOBS, **knobs}))


def frame(
    change: Callable[[dict[str, Any]], None] = lambda columns: None, days: int = 20
) -> pa.Table:
    columns = simulate(days, 1)
    change(columns)
    moments = pa.array(columns.pop("event_timestamp"), pa.timestamp("us", tz="UTC"))
    columns.pop("known")
    return pa.table({"event_timestamp": moments, **columns})


# splits


def divided(
    moments: Any, split: Split | None = None, **options: Any
) -> tuple[splits.Boundaries, Any]:
    """Return the boundaries and the parts of decisions by time."""
    split = split or Split()
    how = splits.boundaries(moments, split, **options)
    return how, splits.assign([0] * len(moments), moments, split, 7, how)


def test_a_moment_is_never_divided_and_parts_follow_in_time_by_shares_of_the_rows() -> None:
    moments = np.repeat(np.arange(370, dtype=np.int64) ** 2, 5)
    how, parts = divided(moments)
    assert how.by == "time"
    assert all(len(set(parts[moments == moment].tolist())) == 1 for moment in np.unique(moments))
    assert (np.diff(parts) >= 0).all()
    assert np.bincount(parts) / len(parts) == pytest.approx([0.6, 0.2, 0.2], abs=0.004)


def test_a_boundary_is_the_first_moment_that_begins_at_or_after_its_row() -> None:
    # The eighth row begins the moment, the ninth does not.
    moments = np.array([0, 1, 2, 3, 4, 5, 6, 7, 7, 7], dtype=np.int64)
    assert divided(moments, Split(evaluation=0.3))[0].evaluation_from == 7
    assert divided(np.append(moments, [8, 9]), Split(evaluation=0.3))[0].evaluation_from == 8


def test_the_embargo_belongs_to_no_part_and_the_rest_is_divided_in_proportion() -> None:
    moments = np.arange(100, dtype=np.int64) * DAY
    how, parts = divided(moments, embargo=timedelta(days=10))
    assert (how.evaluation_from, how.tune_until) == (80 * DAY, 70 * DAY)
    assert moments[parts == splits.NO_PART].tolist() == moments[70:80].tolist()
    # A quarter of what is left is tune.
    assert np.bincount(parts[parts >= 0]).tolist() == [53, 17, 20]
    assert how.tune_from == 53 * DAY
    assert (divided(moments, embargo=timedelta(0))[1] >= 0).all()
    by_hash = Split(by="hash")
    hashed = splits.boundaries(moments, by_hash, embargo=timedelta(days=10))
    assert (splits.assign(list(range(100)), moments, by_hash, 7, hashed) >= 0).all()


def test_an_outcome_known_right_at_the_first_judged_decision_is_embargoed() -> None:
    moments = np.arange(100, dtype=np.int64) * DAY
    parts = divided(moments, embargo=timedelta(days=1))[1]
    assert parts[78:81].tolist() == [1, splits.NO_PART, 2]
    assert divided(moments, embargo=timedelta(days=1) - timedelta(microseconds=1))[1][
        78:81
    ].tolist() == [1, 1, 2]


def test_the_embargo_is_the_delay_but_at_most_a_tenth_of_the_span_where_none_is_stated() -> None:
    moments = np.arange(1000, dtype=np.int64) * DAY
    assert divided(moments, delay=timedelta(days=33))[0].tune_until == (800 - 33) * DAY
    how = divided(moments, delay=timedelta(days=700))[0]
    assert how.tune_until == 725 * DAY, (
        "a tenth of what lies between the fiftieth decision and the first judged"
    )


def test_one_row_of_long_ago_changes_neither_parts_nor_embargo() -> None:
    """10,000 decisions of 90 days were divided 1 : 1 : 9,999 by one more of five years before,
    and training ended for good.
    """
    moments = np.sort(np.random.default_rng(2).integers(0, 90 * 86_400, 10_000)) * 1_000_000
    delay = timedelta(days=60)
    before, parts = divided(moments, delay=delay)
    old = np.insert(moments, 0, -1800 * DAY)
    after, more = divided(old, delay=delay)
    for name in ("tune_from", "tune_until", "evaluation_from"):
        assert abs(getattr(before, name) - getattr(after, name)) < DAY // 4
    assert np.bincount(parts[parts >= 0]) == pytest.approx(np.bincount(more[more >= 0]), abs=30)


def test_an_embargo_longer_than_the_history_leaves_a_moment_to_each_part() -> None:
    moments = np.repeat(np.arange(10, dtype=np.int64) * DAY, 3)
    parts = divided(moments, embargo=timedelta(days=400))[1]
    assert parts.tolist() == [0] * 3 + [1] * 3 + [splits.NO_PART] * 18 + [2] * 6


@pytest.mark.parametrize(
    "shares", [(0.2, 0.2), (0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.05, 0.3), (0.9, 0.31)]
)
@pytest.mark.parametrize("embargo", [None, timedelta(0), timedelta(days=9)])
def test_boundaries_only_move_forward_as_decisions_are_added_at_the_end_and_no_part_is_empty(
    shares: tuple[float, float], embargo: timedelta | None
) -> None:
    split = Split(by="time", tune=shares[0], evaluation=shares[1])
    for seed in range(12):
        draw = np.random.default_rng(seed)
        # Ties, bursts and long gaps.
        steps = draw.integers(0, draw.choice([2, 5, 30]), 70) * draw.choice([1, 1, 1, 400], 70)
        moments = np.cumsum(steps).astype(np.int64) * DAY
        last = (-1, -1, -1)
        for count in range(1, 70):
            given = draw.permutation(moments[:count])
            how = splits.boundaries(given, split, embargo=embargo, delay=timedelta(days=20))
            if how.reason:
                assert len(np.unique(given)) < 3
                continue
            found = (how.tune_from or 0, how.tune_until or 0, how.evaluation_from or 0)
            assert all(now >= before for now, before in zip(found, last, strict=True))
            last = found
            parts = splits.assign([0] * count, given, split, 7, how)
            assert {0, 1, 2} <= set(parts.tolist())
            assert all(len(set(parts[given == moment].tolist())) == 1 for moment in given)


def test_two_moments_are_too_few_for_a_split_by_time() -> None:
    assert "only 2 different times" in splits.boundaries(np.array([1, 1, 2]), Split()).reason
    assert splits.boundaries(np.array([1, 1, 1]), Split()) == splits.Boundaries("hash")
    assert splits.boundaries(np.array([], dtype=np.int64), Split()).by == "hash"
    assert (
        "only 0 different times"
        in splits.boundaries(np.array([], dtype=np.int64), Split(by="time")).reason
    )


def test_the_hash_split_is_fixed_for_an_entity_and_has_its_shares() -> None:
    entities = [f"e{number}" for number in range(20_000)]
    moments = np.zeros(len(entities), dtype=np.int64)
    how = splits.boundaries(moments, Split())
    parts = splits.assign(entities, moments, Split(), 7, how)
    assert np.bincount(parts) / len(parts) == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
    fewer = splits.assign(entities[5_000:], moments[5_000:], Split(), 7, how)
    assert (parts[5_000:] == fewer).all()
    assert (splits.assign(entities, moments, Split(), 8, how) != parts).any()
    integers = splits.hash_shares([1, 2], 7)
    assert integers.tolist() == splits.hash_shares(["1", "2"], 7).tolist()


def test_thinning_keeps_the_same_rows_whatever_their_order() -> None:
    entities, moments = list(range(500)), np.arange(500, dtype=np.int64) % 7
    kept = splits.subsample(entities, moments, limit=100, seed=7)
    order = np.random.default_rng(1).permutation(500)
    shuffled = splits.subsample(
        [entities[index] for index in order], moments[order], limit=100, seed=7
    )
    assert len(kept) == 100
    assert set(kept.tolist()) == {entities[order[index]] for index in shuffled}


# fitting and leaks


def parts(rows: pa.Table) -> fitting.Parts:
    moments = np.asarray(rows["event_timestamp"].cast(pa.int64()))
    return splits.assign([0] * len(rows), moments, Split(), 7, splits.boundaries(moments, Split()))


def test_equal_frames_give_equal_bundles_and_a_changed_row_another() -> None:
    rows = frame()
    first, second = (fitting.fit(rows, parts(rows), use_case(), "f") for _ in range(2))
    assert first.files == second.files
    changed = frame(lambda columns: columns["income"].__setitem__(3, 9.0))
    assert (
        fitting.fit(changed, parts(changed), use_case(), "f").files["model.txt"]
        != first.files["model.txt"]
    )
    assert b"[num_threads: 1]" in first.files["model.txt"]
    assert first.metrics["evaluation_auc"] > 0.7


def test_nothing_of_the_evaluation_rows_reaches_the_bundle() -> None:
    rows = frame()
    judged = parts(rows) == splits.PARTS.index(splits.EVALUATION)

    def mark(columns: dict[str, Any]) -> None:
        """Plant what would be learnt at once: the outcome itself as a number, and turned around
        as the label.
        """
        for place in np.flatnonzero(judged).tolist():
            columns["income"][place] = 1e6 * (1 + columns["label"][place])
            columns["label"][place] = 1 - columns["label"][place]

    marked = frame(mark)
    assert not marked.equals(rows)
    assert (
        fitting.fit(marked, parts(rows), use_case(), "f").files
        == fitting.fit(rows, parts(rows), use_case(), "f").files
    )


def test_rounds_written_as_a_parameter_are_the_most_of_both_models() -> None:
    rows = frame()
    case = use_case()
    asked = case.training.model_copy(
        update={"params": {**case.training.params, "num_iterations": 40}}
    )
    fitted = fitting.fit(rows, parts(rows), case.model_copy(update={"train_model": asked}), "f")
    assert fitted.rounds <= 40
    assert fitted.files["model.txt"].count(b"\nTree=") == fitted.rounds


def test_calibration_is_fitted_on_tune_rows_only() -> None:
    generator = np.random.default_rng(1)
    raw = generator.normal(size=5000)
    labels = (generator.random(5000) < 1 / (1 + np.exp(-(2.0 * raw - 0.5)))).astype(float)
    slope, offset = fitting.platt(raw, labels)
    assert (slope, offset) == (pytest.approx(2.0, abs=0.15), pytest.approx(-0.5, abs=0.1))
    assert fitting.platt(-raw, labels) == (1.0, 0.0)
    assert fitting.platt(np.zeros(10), np.array([0.0, 1.0] * 5)) == (
        pytest.approx(1.0),
        pytest.approx(0.0),
    )


def test_labels_that_are_no_outcome_are_refused() -> None:
    with pytest.raises(SourceError, match="neither 0 nor 1"):
        matrix.labels_of(frame(lambda columns: columns["label"].__setitem__(0, 2.0)))


def test_a_feature_that_is_null_everywhere_is_named() -> None:
    empty = frame(
        lambda columns: columns.update(region=pa.nulls(len(columns["label"]), pa.string()))
    )
    with pytest.raises(ConfigError, match=r"'region' of visits is null on all 1800 training rows"):
        leaks.check(empty, use_case()).refuse()


@pytest.mark.parametrize(
    "leak",
    [
        lambda label, noise: label * 10 + noise,
        lambda label, noise: -label,
        lambda label, noise: [None if value else 1.0 for value in label],
        lambda label, noise: [
            float(50 * value + number // 2 % 2 * 100) for number, value in enumerate(label)
        ],
    ],
    ids=["high", "reversed", "missing", "up and down again"],
)
def test_a_feature_that_knows_the_outcome_is_named(leak: Callable[[Any, Any], Any]) -> None:
    noise = np.random.default_rng(1).normal(size=1800)
    leaking = frame(
        lambda columns: columns.update(
            income=pa.array(list(leak(columns["label"], noise)), pa.float64())
        )
    )
    with pytest.raises(ConfigError, match=r"leaks through income \((0\.99|1\.00)"):
        leaks.check(leaking, use_case()).refuse()
    text = frame(
        lambda columns: columns.update(region=[f"outcome {value}" for value in columns["label"]])
    )
    with pytest.raises(ConfigError, match="leaks through region"):
        leaks.check(text, use_case()).refuse()


@pytest.mark.parametrize(
    ("column", "make"),
    [
        ("visits", lambda keys: keys),
        ("visits", lambda keys: keys * 2 - 7),
        ("region", lambda keys: [f"client {key}" for key in keys]),
        ("region", lambda keys: [f"note {number}" for number in range(len(keys))]),
    ],
    ids=["the key", "a count of entities", "a name an entity", "free text"],
)
def test_ids_are_no_features(column: str, make: Callable[[Any], Any]) -> None:
    with pytest.raises(ConfigError, match=f"{column!r} of visits is an id"):
        leaks.check(
            frame(lambda columns: columns.update({column: make(columns["customer_id"])})),
            use_case(),
        ).refuse()


def test_honest_features_pass_the_leak_check() -> None:
    found = leaks.check(frame(), use_case())
    assert not found.refusals
    alone = found.alone
    assert 0.6 < alone["income"] < 0.8
    assert 0.5 <= alone["region"] < 0.65


def test_a_text_with_many_values_that_say_nothing_is_no_leak() -> None:
    generator = np.random.default_rng(3)
    values = [f"r{number}" for number in generator.integers(0, 400, 1800)]
    many = frame(lambda columns: columns.update(region=values))
    assert leaks.check(many, use_case()).alone["region"] < 0.6


# the stage


def test_a_training_records_everything_that_made_it(bench: Bench) -> None:
    report = bench.run("train_model", KEY)
    model, manifest = bench.model(KEY), bench.model(KEY).manifest
    assert (report.state, model.version, model.partition, model.mode, model.generation) == (
        "done",
        1,
        KEY,
        "live",
        0,
    )
    assert model.pins == predictor.serving_pins()
    assert model.as_of == datetime(2026, 2, 6, tzinfo=UTC)
    predictor.trial_load(model.bundle, model.model_digest)
    wanted = (
        "training_set tables feature_set git_commit lock libraries split counts "
        "mode as_of partition"
    )
    assert all(manifest[name] for name in wanted.split())
    assert manifest["tables"] == {
        f"{NAME}/labels": 0,
        next(name for name in manifest["tables"] if "features" in name): 0,
    }
    rows = bench.lake.read(stored.table(bench.lake, f"{NAME}/training_set"), keys=[KEY])
    assert len(rows) == manifest["training_set"]["rows"] == manifest["counts"]["used"]
    assert sorted(set(rows["split"].to_pylist())) == ["evaluation", "train", "tune"]
    reference = manifest["reference"]
    assert Path(reference["path"]).parent == Path(model.bundle).parent
    sample = pq.read_table(reference["path"])
    assert (len(sample), reference["entities"]) == (reference["rows"], 90)
    assert {"income", "visits", "region"} <= set(sample.column_names)
    assert json.loads(json.dumps(report.outputs)) == report.outputs


def test_nothing_younger_than_its_delay_or_after_as_of_is_trained_on(bench: Bench) -> None:
    bench.run("train_model", KEY)
    rows = bench.lake.read(stored.table(bench.lake, f"{NAME}/training_set"), keys=[KEY])
    newest = max(rows["event_timestamp"].to_pylist())
    assert newest == datetime(2026, 2, 3, 12, tzinfo=UTC), (
        "decisions of 4 February at noon mature only after 6 February, 00:00"
    )
    assert bench.result_counts(KEY)["immature"] == 90


def test_a_rerun_reuses_and_a_lost_record_finds_the_same_version(bench: Bench) -> None:
    first = bench.run("train_model", KEY)
    assert bench.run("train_model", KEY).reused
    bench.forget_result("train_model", KEY)
    again = bench.run("train_model", KEY)
    assert not again.reused
    assert (again.digest, again.outputs["version"], again.outputs["run_id"]) == (
        first.digest,
        1,
        first.outputs["run_id"],
    )
    assert [model.version for model in bench.records.models.of(NAME)] == [1]
    rows = bench.lake.read(stored.table(bench.lake, f"{NAME}/training_set"), keys=[KEY])
    assert len(rows) == first.outputs["training_set"]["rows"]


def test_force_compares_and_registers_nothing(bench: Bench) -> None:
    bench.run("train_model", KEY)
    versions = bench.lake.version(stored.table(bench.lake, f"{NAME}/training_set"))
    assert bench.run("train_model", KEY, force=True).reason == "equal to the record"
    assert [model.version for model in bench.records.models.of(NAME)] == [1]
    assert bench.lake.version(stored.table(bench.lake, f"{NAME}/training_set")) == versions


def test_a_backfill_that_becomes_live_shows_so_in_the_registry(bench: Bench) -> None:
    bench.run("train_model", KEY, mode="backfill")
    report = bench.run("train_model", KEY, mode="live")
    assert (report.reused, report.effects) == (True, {"mode": "live"})
    assert bench.run("train_model", KEY, mode="live").effects == {}


def test_too_few_mature_rows_is_a_success_without_a_candidate(bench: Bench) -> None:
    bench.configure(min_rows=5000)
    report = bench.run("train_model", KEY)
    assert (report.state, report.outputs["candidate"]) == ("done", None)
    assert "too few mature rows: the evaluation part has" in report.reason
    assert bench.records.models.of(NAME) == []
    assert mlflow_registry.aliases(bench.settings, NAME) == {}
    early = bench.run("train_model", "2026-01-02")
    assert (early.state, early.outputs["candidate"]) == ("done", None)


def test_a_single_class_is_no_candidate(bench: Bench) -> None:
    bench.write(lambda columns: columns.update(label=np.ones_like(columns["label"])))
    assert "0 of class 0" in bench.run("train_model", KEY).reason


def test_a_leak_refuses_the_stage_and_leaves_no_model(bench: Bench) -> None:
    bench.write(lambda columns: columns.update(visits=columns["label"].astype(int)))
    with pytest.raises(ConfigError, match="leaks through visits"):
        bench.run("train_model", KEY)
    assert bench.records.models.of(NAME) == []
    refusals = bench.records.audit.entries(NAME, action="stage.refused")
    assert "leaks through visits" in refusals[-1].details["reason"]


def test_missing_partitions_are_named_with_the_command_that_fills_them(bench: Bench) -> None:
    bench.forget_result("materialize_features", "2026-01-20")
    with pytest.raises(
        MissingPartition, match=r"2026-01-20.*evergreen load-history visits --from 2026-01-20"
    ):
        bench.run("train_model", KEY)


def test_a_new_feature_set_names_the_partitions_that_lack_it(bench: Bench) -> None:
    bench.configure(more=", income2: float64")
    with pytest.raises(
        MissingPartition,
        match=r"36 partitions \(2026-01-01 to 2026-02-05\) do not hold feature set",
    ):
        bench.run("train_model", KEY)


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
    from include.features import frames

    honest = frames.training_frame
    monkeypatch.setattr(
        frames, "training_frame", lambda *arguments, **named: honest(*arguments, **named).slice(1)
    )
    with pytest.raises(EvergreenError, match="rows for"):
        bench.run("train_model", KEY)


def test_out_of_fold_auc_on_real_data_is_what_is_published_and_no_leak() -> None:
    """UCI credit default: LightGBM reaches .779 in the literature, the best known is .791; above
    .80 something leaks.
    """
    path = Settings().data_dir / "uci_credit_default" / "UCI_Credit_Card.csv"
    if not path.exists():
        pytest.skip(
            f"{path} is not there; set EVERGREEN_DATA_DIR to the folder of the real data sets"
        )
    table = csv.read_csv(path)
    names = [
        name
        for name in table.column_names
        if name.startswith(("LIMIT", "EDUCATION", "PAY_", "BILL_"))
    ]
    columns = ", ".join(f"{name}: float64" for name in names)
    text = YAML.format(**{**KNOBS, "rounds": 300}).replace(
        "income: float64, visits: int64, region: string", columns
    )
    credit = parse(
        text.replace(
            "early_stopping: 10, params: {min_data_in_leaf: 20, learning_rate: 0.1}",
            "early_stopping: 30",
        )
    )
    label = next(name for name in table.column_names if name.startswith("default"))
    moment = pa.array(np.zeros(len(table), dtype="datetime64[us]"), pa.timestamp("us", tz="UTC"))
    rows = pa.table(
        {
            "customer_id": table["ID"],
            "event_timestamp": moment,
            "label": table[label].cast(pa.float64()),
        }
    )
    for name in names:
        rows = rows.append_column(name, table[name].cast(pa.float64()))
    assert 0.775 <= fitting.out_of_fold_auc(rows, credit) <= 0.80
