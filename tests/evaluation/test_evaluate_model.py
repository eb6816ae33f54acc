"""The gate: first, equal and worse models, too few rows, NaN, a champion that has seen the rows;
verdicts and effects.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from include.errors import ConfigError, EvergreenError
from include.evaluation import evaluate_model, gate
from include.evaluation import report as evaluation_report
from include.lake.digests import digest
from include.models import metrics as statistics
from include.models import mlflow_registry
from include.models.bundle import digest_of
from include.models.loading import load_model
from include.models.matrix import columns_of
from include.records.records import AuditEntry
from include.records.schema import ModelRow, ResultRow
from include.training import leaks
from tests.builders.judging import NAME, NOW, Bench, new_bench

# Each trains on other days, for a day is never divided.
FIRST, SECOND, THIRD = "2026-02-04", "2026-02-06", "2026-02-07"
# Days after the last decision matured: both train on the same rows.
QUIET = ("2026-02-20", "2026-02-21")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = new_bench(tmp_path_factory.mktemp("base") / "home")
    made.write(recorded=60)
    return made


@pytest.fixture
def bench(base: Bench, tmp_path: Path) -> Bench:
    return base.copy(tmp_path / "home")


def roll_back(bench: Bench) -> None:
    route = bench.records.routes.rollback(
        NAME, entry=AuditEntry("release.rolled_back", NAME, "x", "test", {}, at=NOW)
    )
    mlflow_registry.mirror_aliases(bench.settings, NAME, route)


def test_the_first_model_passes_on_absolute_checks_and_becomes_challenger(bench: Bench) -> None:
    outputs = bench.judged(FIRST)
    assert (outputs["verdict"], outputs["opponent"], outputs["reasons"]) == ("pass", None, [])
    assert [check["passed"] for check in outputs["checks"]] == [True] * 6
    assert bench.records.models.get(NAME, 1).state == "challenger"  # type: ignore[union-attr]
    assert mlflow_registry.aliases(bench.settings, NAME) == {"challenger": 1}
    judged = bench.records.audit.entries(NAME, action="model.judged")
    assert (len(judged), judged[0].subject, judged[0].details["verdict"]) == (1, FIRST, "pass")
    assert len(bench.records.audit.entries(NAME, action="model.challenger")) == 1
    assert bench.records.audit.verify() is None


def test_digests_are_over_ids_and_numbers_and_never_over_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name and reason said otherwise: training's digest, the verdict's and what the
    verdict has read stay as they are.
    """
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.judged(SECOND)
    before = {
        stage: bench.records.results.get(NAME, SECOND, stage)
        for stage in ("train_model", "evaluate_model")
    }
    check, finding, standing = (
        gate.Check.__init__,
        leaks.Finding.__init__,
        evaluate_model.Standing.__init__,
    )

    def words(made: Any, *given: Any) -> None:
        if isinstance(made, gate.Check):
            check(made, given[0], f"other {given[1]}", *given[2:5], f"other {given[5:]}")
        elif isinstance(made, leaks.Finding):
            finding(made, *given[:3], f"other {given[3]}", f"other {given[4]}")
        else:
            standing(made, given[0], "other")

    for kind in (gate.Check, leaks.Finding, evaluate_model.Standing):
        monkeypatch.setattr(kind, "__init__", words)
    for stage, was in before.items():
        bench.forget_result(stage, SECOND)
        bench.run(stage, SECOND)
        now = bench.records.results.get(NAME, SECOND, stage)
        assert now is not None
        assert was is not None
        assert (now.digest, sorted(now.reads)) == (was.digest, sorted(was.reads))
    assert now.outputs["checks"][0]["name"].startswith("other ")
    assert len({one["id"] for one in now.outputs["checks"]}) == len(now.outputs["checks"])


def test_an_as_good_model_is_compared_with_the_champion_on_the_same_rows(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    outputs = bench.judged(SECOND)
    assert (outputs["verdict"], outputs["opponent"]) == ("pass", 1)
    metrics = outputs["metrics"]
    assert metrics["difference"] == pytest.approx(
        metrics["auc"] - metrics["opponent_auc"], abs=1e-12
    )
    assert metrics["difference_low"] <= metrics["difference"] <= metrics["difference_high"]
    assert mlflow_registry.aliases(bench.settings, NAME) == {"champion": 1, "challenger": 2}


def test_an_equal_model_has_nothing_to_release(bench: Bench) -> None:
    bench.judged(QUIET[0])
    bench.release(1, QUIET[0])
    outputs = bench.judged(QUIET[1])
    assert outputs["model_digest"] == bench.model(QUIET[0]).model_digest
    assert outputs["verdict"] == "hold"
    assert outputs["reasons"] == ["equal to version 1, which serves: nothing to release"]
    assert bench.records.models.get(NAME, 2).state == "candidate"  # type: ignore[union-attr]


def worse(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    text = (bench.home / "usecases" / "visits.yaml").read_text()
    text = text.replace("training: {", "training: {exclude: [income, visits], ").replace(
        "min_auc: 0.6", "min_auc: 0.4"
    )
    (bench.home / "usecases" / "visits.yaml").write_text(text)


def test_a_worse_model_fails_with_its_interval_and_changes_nothing_live(bench: Bench) -> None:
    worse(bench)
    outputs = bench.judged(SECOND)
    assert outputs["verdict"] == "fail"
    (reason,) = outputs["reasons"]
    assert re.search(
        r"AUC difference to version 1, lower end is -0\.\d+ .*must be above -0\.0300", reason
    )
    assert bench.records.models.get(NAME, 2).state == "candidate"  # type: ignore[union-attr]
    assert mlflow_registry.aliases(bench.settings, NAME) == {"champion": 1}
    report = bench.run("evaluate_model", SECOND)
    assert (report.state, report.reused) == ("done", True), "a refusal is a success, and terminal"


def test_a_model_below_the_absolute_limits_fails_each_by_name(bench: Bench) -> None:
    def later_more(columns: dict[str, Any]) -> None:
        newest = np.arange(len(columns["label"])) > 0.75 * len(columns["label"])
        columns["label"] = np.where(
            newest & (np.arange(len(newest)) % 2 == 0), 1.0, columns["label"]
        )

    bench.write(later_more, recorded=60)
    bench.configure(min_auc=0.99, max_error=0.01)
    outputs = bench.judged(FIRST)
    assert outputs["verdict"] == "fail"
    names = [reason.split(" is ")[0] for reason in outputs["reasons"]]
    assert names[:2] == ["AUC", "calibration error"]


def test_too_few_rows_is_a_hold_with_and_without_a_candidate(bench: Bench) -> None:
    bench.configure(min_rows=5000)
    outputs = bench.judged(FIRST)
    assert (outputs["verdict"], outputs["version"]) == ("hold", None)
    assert "too few mature rows" in outputs["reasons"][0]
    bench.configure(min_rows=20)
    bench.run("train_model", SECOND)
    bench.configure(min_rows=300)
    held = bench.run("evaluate_model", SECOND).outputs
    assert (held["verdict"], held["version"]) == ("hold", 1)
    assert "too few mature rows" in held["reasons"][0]
    assert mlflow_registry.aliases(bench.settings, NAME) == {}


@pytest.mark.parametrize("number", [None, float("nan")])
def test_a_missing_number_is_a_hold(bench: Bench, number: float | None) -> None:
    bench.run("train_model", FIRST)
    bench.edit_result("train_model", FIRST, metrics={"yardstick_auc": number})
    outputs = bench.run("evaluate_model", FIRST).outputs
    assert outputs["verdict"] == "hold"
    assert outputs["reasons"] == ["AUC over the logistic baseline is not computable"]
    assert bench.records.models.get(NAME, 1).state == "candidate"  # type: ignore[union-attr]


def test_a_champion_that_has_seen_more_than_a_tenth_of_the_rows_is_a_hold(bench: Bench) -> None:
    bench.judged("2026-02-15")
    bench.release(1, FIRST)
    outputs = bench.judged(SECOND)
    assert outputs["verdict"] == "hold"
    said = (
        r"version 1 was trained or tuned on \d+ of 630 evaluation rows, more than 10%: the "
        r"champion has seen these rows"
    )
    assert re.fullmatch(said, outputs["reasons"][0])


def show_rows(bench: Bench, version: int, rows: list[dict[str, Any]]) -> None:
    """Put rows among those that a model was trained on, as another split would have."""
    with bench.records.transaction() as session:
        row = session.get_one(ModelRow, (NAME, version))
        made = row.manifest["training_set"]
        theirs = bench.lake.read(
            made["table"], keys=[row.partition], version=made["table_version"]
        ).drop_columns(["partition"])
        seen = pa.Table.from_pylist(rows, theirs.schema).set_column(
            theirs.schema.get_field_index("split"), "split", pa.array(["train"] * len(rows))
        )
        both = pa.concat_tables([theirs.filter(pc.not_equal(theirs["split"], "evaluation")), seen])
        number = bench.lake.replace(made["table"], row.partition, both)
        changed = {
            "digest": digest(both, sort_by=["event_timestamp", "customer_id"]),
            "rows": len(both),
            "table_version": number,
        }
        row.manifest = {**row.manifest, "training_set": {**made, **changed}}


def evaluation_rows(bench: Bench, key: str) -> list[dict[str, Any]]:
    made = bench.model(key).manifest["training_set"]
    rows = bench.lake.read(made["table"], keys=[key], version=made["table_version"]).drop_columns(
        ["partition"]
    )
    return [row for row in rows.to_pylist() if row["split"] == "evaluation"]


def test_rows_that_the_champion_has_seen_are_left_out_and_counted(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.run("train_model", SECOND)
    rows = evaluation_rows(bench, SECOND)
    show_rows(bench, 1, rows[::12])
    outputs = bench.run("evaluate_model", SECOND).outputs
    seen = len(rows[::12])
    assert (outputs["left_out"], outputs["compared"]) == (seen, len(rows) - seen)
    assert outputs["verdict"] == "pass", outputs["reasons"]
    assert bench.records.audit.entries(NAME, action="model.judged")[-1].details["left_out"] == seen
    assert (
        f"{seen} rows that the opponent was trained or tuned on"
        in Path(outputs["report"]).read_text()
    )
    kept = [row for number, row in enumerate(rows) if number % 12]
    asked = pa.Table.from_pylist(kept)
    labels = np.array([row["label"] for row in kept])
    expected = []
    for key in (SECOND, FIRST):
        predictor = load_model(bench.model(key).bundle, bench.model(key).model_digest)
        expected.append(statistics.auc(labels, predictor.many(columns_of(asked, predictor.schema))))
    assert outputs["metrics"]["opponent_auc"] == pytest.approx(expected[1], abs=1e-12)
    assert outputs["metrics"]["difference"] == pytest.approx(expected[0] - expected[1], abs=1e-12)


def test_a_class_that_the_champion_has_seen_too_much_of_is_a_hold(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.run("train_model", SECOND)
    rows = evaluation_rows(bench, SECOND)
    zeros = [row for row in rows if not row["label"]]
    show_rows(bench, 1, zeros[:5])
    bench.configure(min_rows=len(zeros) - 4)
    outputs = bench.run("evaluate_model", SECOND).outputs
    assert outputs["verdict"] == "hold"
    assert f"0 are left, each class needs {len(zeros) - 4}" in outputs["reasons"][0]


@pytest.mark.parametrize("version", [1, 2], ids=["the opponent's", "the candidate's"])
def test_a_training_set_with_as_many_other_rows_is_no_training_set(
    bench: Bench, version: int
) -> None:
    """The lake gives back other values than were trained on, as a cast once did: as many rows,
    another digest.
    """
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.run("train_model", SECOND)
    made = bench.model((FIRST, SECOND)[version - 1]).manifest["training_set"]
    key = (FIRST, SECOND)[version - 1]
    rows = bench.lake.read(made["table"], keys=[key], version=made["table_version"]).drop_columns(
        ["partition"]
    )
    place = rows.schema.get_field_index("visits")
    other = bench.lake.replace(
        made["table"], key, rows.set_column(place, "visits", pc.add(rows["visits"], 1))
    )
    if version == 2:
        bench.edit_result("train_model", SECOND, training_set={"table_version": other})
        with pytest.raises(
            EvergreenError,
            match=r"holds sha256:\w+ in version \d+, recorded are \d+ rows of sha256",
        ):
            bench.run("evaluate_model", SECOND)
        return
    with bench.records.transaction() as session:
        row = session.get_one(ModelRow, (NAME, 1))
        row.manifest = {**row.manifest, "training_set": {**made, "table_version": other}}
    outputs = bench.run("evaluate_model", SECOND).outputs
    assert outputs["verdict"] == "hold"
    assert "version 1 cannot be asked" in outputs["reasons"][0]


def test_a_champion_whose_bundle_cannot_be_read_is_no_verdict_and_is_judged_again(
    bench: Bench,
) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.run("train_model", SECOND)
    bundle = Path(bench.model(FIRST).bundle)
    away = bundle.rename(bundle.with_name("away"))
    for _ in range(2):
        report = bench.run("evaluate_model", SECOND)
        assert (report.state, report.reused, report.outputs["verdict"]) == (
            "unreadable",
            False,
            "hold",
        )
        assert report.reason.startswith("version 1 cannot be asked: ")
    assert len(bench.records.audit.entries(NAME, action="evaluate_model.unreadable")) == 1
    assert [
        entry.subject for entry in bench.records.audit.entries(NAME, action="model.judged")
    ] == [FIRST]
    with pytest.raises(ConfigError, match="no record to compare with"):
        bench.run("evaluate_model", SECOND, force=True)
    away.rename(bundle)
    report = bench.run("evaluate_model", SECOND)
    assert (report.state, report.reused) == ("done", False)
    assert report.outputs["opponent"] == 1
    assert bench.run("evaluate_model", SECOND).reused
    assert bench.run("evaluate_model", SECOND, force=True).reason == "equal to the record"


def test_censored_decisions_above_the_limit_are_a_hold(bench: Bench) -> None:
    def withdraw(columns: dict[str, Any]) -> None:
        columns["label"] = [
            None if index % 10 == 0 else value for index, value in enumerate(columns["label"])
        ]

    bench.write(withdraw, recorded=60)
    outputs = bench.judged(FIRST)
    assert outputs["verdict"] == "hold"
    assert (
        "past their delay without a label are 10.0% of all, the limit is 5.0%"
        in outputs["reasons"][0]
    )


def test_a_break_within_the_window_is_a_hold_though_it_is_little_of_all_history(
    bench: Bench,
) -> None:
    """Every second outcome of the last mature days is missing: 11 % of all decisions, 22 % of
    the window's.
    """

    def breaks(columns: dict[str, Any]) -> None:
        day = (
            (columns["event_timestamp"] - columns["event_timestamp"][0])
            .astype("timedelta64[D]")
            .astype(int)
        )
        lost = (day >= 26) & (day <= 33) & (np.arange(len(day)) % 2 == 0)
        columns["label"] = [
            None if gone else value for gone, value in zip(lost, columns["label"], strict=True)
        ]

    bench.write(breaks, recorded=60)
    bench.configure(max_censored=0.13)
    assert bench.judged(FIRST)["counts"]["censored_share"] == pytest.approx(315 / 2970)
    window(bench, "20d")
    outputs = bench.judged(SECOND)
    assert outputs["counts"]["censored_share"] == pytest.approx(360 / 1620)
    assert outputs["verdict"] == "hold"
    assert "past their delay without a label are" in outputs["reasons"][0]


def window(bench: Bench, span: str) -> None:
    file = bench.home / "usecases" / "visits.yaml"
    file.write_text(file.read_text().replace("training: {", f"training: {{window: {span}, "))


def test_a_break_in_what_is_judged_is_a_hold_though_it_is_little_of_the_window(
    bench: Bench,
) -> None:
    def breaks(columns: dict[str, Any]) -> None:
        lost = (np.arange(len(columns["label"])) % 4 == 0) & (
            columns["event_timestamp"] >= np.datetime64("2026-01-30")
        )
        columns["label"] = [
            None if gone else value for gone, value in zip(lost, columns["label"], strict=True)
        ]

    bench.write(breaks, recorded=60)
    bench.configure(max_censored=0.1)
    outputs = bench.judged(FIRST)
    counts = outputs["counts"]
    assert counts["censored_share"] < 0.08
    assert counts["censored_share_judged"] > 0.12
    assert outputs["verdict"] == "hold"
    assert (
        f"are {counts['censored_share_judged']:.1%} of all, the limit is 10.0%"
        in outputs["reasons"][0]
    )


def test_the_verdict_follows_decisions_without_an_outcome_though_the_model_stays_equal(
    bench: Bench,
) -> None:
    first = bench.judged(FIRST)
    assert first["verdict"] == "pass"

    def more(columns: dict[str, Any]) -> None:
        late = np.flatnonzero(columns["event_timestamp"] >= np.datetime64("2026-01-20"))
        for name, values in columns.items():
            again = [values[index] for index in late]
            if name == "customer_id":
                again = [value + 1000 for value in again]
            columns[name] = (
                np.concatenate([values, again])
                if isinstance(values, np.ndarray)
                else [*values, *again]
            )
        columns["label"] = [*columns["label"][: -len(late)].tolist(), *[None] * len(late)]

    bench.write(more, recorded=60)
    outputs = bench.judged(FIRST)
    assert (outputs["version"], outputs["model_digest"]) == (
        first["version"],
        first["model_digest"],
    )
    assert outputs["verdict"] == "hold", (
        "by the second training's shares, not those of the manifest on record"
    )
    assert outputs["counts"]["censored_share_judged"] == 0.5
    assert "past their delay without a label are 50.0% of all" in outputs["reasons"][0]


@pytest.mark.parametrize(
    "number",
    [
        "counts.censored_share",
        "counts.censored_share_judged",
        "counts.restated_share",
        "counts.immature",
        "metrics.yardstick_auc",
    ],
)
def test_each_number_that_the_gate_looks_at_counts_for_the_memo(
    judged: Bench, tmp_path: Path, number: str
) -> None:
    bench = judged.copy(tmp_path / "home")
    assert bench.run("evaluate_model", FIRST).reused
    part, _, name = number.partition(".")
    result = bench.records.results.get(NAME, FIRST, "train_model")
    assert result is not None
    bench.edit_result("train_model", FIRST, **{part: {name: result.outputs[part][name] + 1}})
    assert not bench.run("evaluate_model", FIRST).reused


@pytest.fixture(scope="module")
def judged(base: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = base.copy(tmp_path_factory.mktemp("judged") / "home")
    assert made.judged(FIRST)["verdict"] == "pass"
    return made


def test_an_equal_model_of_a_second_training_is_judged_on_the_second_rows(bench: Bench) -> None:
    """The evaluation rows touch no byte of a model, whose manifest on record tells of its first
    training.
    """
    first = bench.judged(FIRST)

    def restate(columns: dict[str, Any]) -> None:
        late = columns["event_timestamp"] >= np.datetime64("2026-01-28T12:00")
        columns["label"] = np.where(late, 1 - columns["label"], columns["label"])

    bench.write(restate, recorded=60)
    again = bench.judged(FIRST)
    assert (again["version"], again["model_digest"]) == (first["version"], first["model_digest"])
    assert again["metrics"]["auc"] == pytest.approx(1 - first["metrics"]["auc"], abs=1e-9)
    assert again["verdict"] == "fail"


def test_the_opponent_is_recorded_and_reused_by_reruns(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.judged(SECOND)
    bench.release(2, SECOND)
    assert bench.run("evaluate_model", SECOND).reused, "the champion is the candidate itself now"
    bench.forget_result("evaluate_model", SECOND)
    assert bench.run("evaluate_model", SECOND).outputs["opponent"] == 1
    assert bench.records.audit.entries(NAME, action="model.judged")[-1].details["verdict"] == "pass"


def test_a_passed_candidate_is_judged_again_where_another_champion_came_between(
    bench: Bench,
) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.judged(SECOND)
    bench.judged(THIRD)
    bench.release(2, SECOND)
    again = bench.run("evaluate_model", THIRD)
    assert (again.reused, again.outputs["opponent"]) == (False, 2)
    opponent = bench.records.opponents.get(NAME, bench.model(THIRD).model_digest, mode="live")
    assert opponent is not None
    assert opponent.version == 2


def test_a_refused_candidate_keeps_its_verdict_whoever_serves_later(bench: Bench) -> None:
    worse(bench)
    bench.judged(SECOND)
    bench.release(2, SECOND)  # by force of a person
    bench.release(1, SECOND)
    assert bench.run("evaluate_model", SECOND).reused


def test_a_backfill_meets_the_champion_of_the_newest_older_partition_and_touches_nothing_live(
    bench: Bench,
) -> None:
    for version, key in enumerate((FIRST, THIRD, "2026-02-09"), start=1):
        bench.judged(key)
        bench.release(version, key)
    live = (bench.records.routes.get(NAME), mlflow_registry.aliases(bench.settings, NAME))
    outputs = bench.judged("2026-02-08", mode="backfill")
    assert outputs["opponent"] == 2
    assert bench.judged(SECOND, mode="backfill")["opponent"] == 1
    assert bench.judged("2026-02-03", mode="backfill")["opponent"] is None
    assert (bench.records.routes.get(NAME), mlflow_registry.aliases(bench.settings, NAME)) == live
    assert [model.state for model in bench.records.models.of(NAME)] == ["released"] * 3 + [
        "candidate"
    ] * 3


def test_a_backfill_on_an_empty_installation_changes_no_live_state(bench: Bench) -> None:
    outputs = bench.judged(FIRST, mode="backfill")
    assert outputs["verdict"] == "pass"
    assert bench.records.routes.get(NAME).generation == 0
    assert mlflow_registry.aliases(bench.settings, NAME) == {}
    risen = bench.run("evaluate_model", FIRST, mode="live")
    assert (risen.reused, risen.effects["challenger"]) == (False, 1)


def test_what_was_trained_before_a_rollback_and_what_was_rolled_back_is_a_hold(
    bench: Bench,
) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.judged(SECOND)
    bench.release(2, SECOND)
    bench.run("train_model", THIRD)
    roll_back(bench)
    outputs = bench.run("evaluate_model", THIRD).outputs
    assert outputs["verdict"] == "hold"
    assert "trained in generation 2, before the rollback of generation 3" in outputs["reasons"][0]
    again = bench.run("evaluate_model", SECOND)
    assert (again.reused, again.outputs["verdict"]) == (False, "hold")
    assert "was rolled back and is on hold" in "; ".join(again.outputs["reasons"])
    assert mlflow_registry.aliases(bench.settings, NAME) == {"champion": 1}
    digest = bench.model(SECOND).model_digest
    bench.records.routes.lift(
        NAME, digest, entry=AuditEntry("release.hold_lifted", NAME, "2", "person", {}, at=NOW)
    )
    lifted = bench.run("evaluate_model", SECOND).outputs
    assert (lifted["verdict"], lifted["opponent"], lifted["generation"]) == ("pass", 1, 4)


def test_a_verdict_that_was_overtaken_makes_no_challenger(bench: Bench) -> None:
    bench.run("train_model", FIRST)
    bench.judged(THIRD)
    bench.release(2, THIRD)
    report = bench.run("evaluate_model", FIRST)
    assert "challenger" not in report.effects
    assert mlflow_registry.aliases(bench.settings, NAME) == {"champion": 2}


def test_the_opponent_is_scored_on_its_own_feature_set(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.configure(more=", extra: float64")
    noise = np.random.default_rng(1)
    bench.write(
        lambda columns: columns.update(extra=noise.normal(size=len(columns["label"]))), recorded=60
    )
    outputs = bench.judged(SECOND)
    assert bench.model(SECOND).feature_set != bench.model(FIRST).feature_set
    assert (outputs["opponent"], outputs["verdict"]) == (1, "pass"), outputs["reasons"]
    assert outputs["metrics"]["opponent_auc"] > 0.7


def test_an_opponent_without_its_features_is_a_hold_until_they_are_filled(bench: Bench) -> None:
    """Joined, a set that was never computed is null: the champion was asked without its
    features, lost, and the gate passed.
    """
    bench.judged(FIRST)
    bench.release(1, FIRST)
    theirs = bench.model(FIRST).feature_set
    bench.configure(more=", extra: float64")
    noise = np.random.default_rng(1)
    bench.write(
        lambda columns: columns.update(extra=noise.normal(size=len(columns["label"]))), recorded=60
    )
    lost = [f"2026-01-{day}" for day in range(20, 32)]
    taken = bench.forget_features(theirs, lost)
    outputs = bench.judged(SECOND)
    assert outputs["verdict"] == "hold"
    (reason,) = outputs["reasons"]
    said = (
        r"version 1 cannot be asked, its features are not there for 12 of \d+ partitions "
        r"\(2026-01-20 to 2026-01-31\)\. Fill"
    )
    assert re.match(said, reason)
    assert "opponent_auc" not in outputs["metrics"]
    assert bench.run("evaluate_model", SECOND).reused
    with bench.records.transaction() as session:
        for key, made in taken.items():
            row = session.get_one(ResultRow, (NAME, key, "materialize_features"))
            row.outputs = {
                **row.outputs,
                "feature_sets": {**row.outputs["feature_sets"], theirs: made},
            }
    again = bench.run("evaluate_model", SECOND)
    assert (again.reused, again.outputs["verdict"]) == (False, "pass"), again.outputs["reasons"]
    assert again.outputs["metrics"]["opponent_auc"] > 0.7


def test_force_gives_the_same_judgement(bench: Bench) -> None:
    bench.judged(FIRST)
    assert bench.run("evaluate_model", FIRST, force=True).reason == "equal to the record"
    assert len(bench.records.audit.entries(NAME, action="model.judged")) == 1


def test_the_report_is_self_contained_and_escapes_what_comes_from_data(bench: Bench) -> None:
    outputs = bench.judged(FIRST)
    text = Path(outputs["report"]).read_text()
    assert outputs["report"].endswith(f"reports/{NAME}/{FIRST}/evaluation.html")
    assert "<b>& more" not in text
    assert "&lt;b&gt;&amp; more" in text
    assert text.count("<svg") == 3
    assert not re.search(r"(src|href)=", text)
    model = bench.model(FIRST)
    bad = "<script>alert(1)</script>"
    manifest = {**model.manifest, "feature_auc": {bad: 0.9}, "git_commit": bad}
    judged = {
        **outputs,
        "reasons": [bad],
        "checks": [{**outputs["checks"][0], "name": bad, "reason": bad}],
    }
    drawn = evaluation_report.pictures(np.array([0.0, 1.0]), np.array([0.1, 0.9]), None)
    page = evaluation_report.page(bench.use_case, FIRST, "live", judged, manifest, drawn)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5
    HTMLParser().feed(page)


def test_a_report_of_nothing_is_still_a_page(bench: Bench) -> None:
    bench.configure(min_rows=5000)
    text = Path(bench.judged(FIRST)["report"]).read_text()
    assert "no candidate" in text
    assert "too few mature rows" in text


def test_the_bundle_that_is_judged_is_the_one_on_record(bench: Bench) -> None:
    bench.run("train_model", FIRST)
    model = bench.model(FIRST)
    files = {
        name: (Path(model.bundle) / name).read_bytes()
        for name in ("model.txt", "schema.json", "golden.json")
    }
    assert digest_of(files) == model.model_digest
    (Path(model.bundle) / "extra.pkl").write_bytes(b"x")
    report = bench.run("evaluate_model", FIRST)
    assert (report.state, report.outputs["verdict"]) == ("unreadable", "hold")
    assert "can run code" in report.reason
    (Path(model.bundle) / "extra.pkl").unlink()
    assert bench.run("evaluate_model", FIRST).state == "done"
