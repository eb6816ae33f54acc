"""The gate: first, equal and worse models, too few rows, NaN, a champion that has seen the rows;
verdicts and effects.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from include.errors import ArtefactError
from include.evaluation import clearance, gate
from include.models import mlflow_registry
from include.models.bundle import digest_of
from include.pipeline.evaluation_outputs import Check, EvaluationOutputs
from include.pipeline.training_outputs import Manifest, TrainingOutputs
from include.training import leak_findings
from tests.builders.judging import EARLY, LATE, MIDDLE, NAME, Bench, make_worse

# Days after the last decision matured: both train on the same rows.
QUIET = ("2026-02-20", "2026-02-21")


def test_the_first_model_passes_on_absolute_checks_and_becomes_challenger(bench: Bench) -> None:
    outputs = bench.judged(EARLY)
    assert (outputs["verdict"], outputs["opponent"], outputs["reasons"]) == ("pass", None, [])
    assert [check["passed"] for check in outputs["checks"]] == [True] * 6
    assert bench.records.models.get(NAME, 1).state == "challenger"  # type: ignore[union-attr]
    assert mlflow_registry.aliases(bench.settings, NAME) == {"challenger": 1}
    judged = bench.records.audit.entries(NAME, action="model.judged")
    assert (len(judged), judged[0].subject, judged[0].details["verdict"]) == (1, EARLY, "pass")
    assert len(bench.records.audit.entries(NAME, action="model.challenger")) == 1
    assert bench.records.audit.verify() is None


def test_digests_are_over_ids_and_numbers_and_never_over_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name and reason said otherwise: training's digest, the verdict's and what the
    verdict has read stay as they are.
    """
    bench.judged(EARLY)
    bench.release(1, EARLY)
    bench.judged(MIDDLE)
    before = {
        stage: bench.records.results.get(NAME, MIDDLE, stage)
        for stage in ("train_model", "evaluate_model")
    }
    check, finding, standing = (
        gate.Check.__init__,
        leak_findings.Finding.__init__,
        clearance.Clearance.__init__,
    )

    def words(made: Any, *given: Any) -> None:
        if isinstance(made, gate.Check):
            check(made, given[0], f"other {given[1]}", *given[2:5], f"other {given[5:]}")
        elif isinstance(made, leak_findings.Finding):
            finding(made, *given[:3], f"other {given[3]}", f"other {given[4]}")
        else:
            standing(made, given[0], "other")

    for kind in (gate.Check, leak_findings.Finding, clearance.Clearance):
        monkeypatch.setattr(kind, "__init__", words)
    for stage, was in before.items():
        bench.forget_result(stage, MIDDLE)
        bench.run(stage, MIDDLE)
        now = bench.records.results.get(NAME, MIDDLE, stage)
        assert now is not None
        assert was is not None
        assert (now.digest, sorted(now.reads)) == (was.digest, sorted(was.reads))
    assert now.outputs["checks"][0]["name"].startswith("other ")
    assert len({one["id"] for one in now.outputs["checks"]}) == len(now.outputs["checks"])


def test_an_as_good_model_is_compared_with_the_champion_on_the_same_rows(bench: Bench) -> None:
    bench.judged(EARLY)
    bench.release(1, EARLY)
    outputs = bench.judged(MIDDLE)
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


def test_a_worse_model_fails_with_its_interval_and_changes_nothing_live(bench: Bench) -> None:
    make_worse(bench)
    outputs = bench.judged(MIDDLE)
    assert outputs["verdict"] == "fail"
    (reason,) = outputs["reasons"]
    assert re.search(
        r"AUC difference to version 1, lower end is -0\.\d+ .*must be above -0\.0300", reason
    )
    assert bench.records.models.get(NAME, 2).state == "candidate"  # type: ignore[union-attr]
    assert mlflow_registry.aliases(bench.settings, NAME) == {"champion": 1}
    report = bench.run("evaluate_model", MIDDLE)
    assert (report.state, report.reused) == ("done", True), "a refusal is a success, and terminal"


def test_a_model_below_the_absolute_limits_fails_each_by_name(bench: Bench) -> None:
    def later_more(columns: dict[str, Any]) -> None:
        newest = np.arange(len(columns["label"])) > 0.75 * len(columns["label"])
        columns["label"] = np.where(
            newest & (np.arange(len(newest)) % 2 == 0), 1.0, columns["label"]
        )

    bench.write(later_more, recorded=60)
    bench.configure(min_auc=0.99, max_error=0.01)
    outputs = bench.judged(EARLY)
    assert outputs["verdict"] == "fail"
    names = [reason.split(" is ")[0] for reason in outputs["reasons"]]
    assert names[:2] == ["AUC", "calibration error"]


def test_too_few_rows_is_a_hold_with_and_without_a_candidate(bench: Bench) -> None:
    bench.configure(min_rows=5000)
    outputs = bench.judged(EARLY)
    assert (outputs["verdict"], outputs["version"]) == ("hold", None)
    assert "too few mature rows" in outputs["reasons"][0]
    bench.configure(min_rows=20)
    bench.run("train_model", MIDDLE)
    bench.configure(min_rows=300)
    held = bench.run("evaluate_model", MIDDLE).outputs
    assert (held["verdict"], held["version"]) == ("hold", 1)
    assert "too few mature rows" in held["reasons"][0]
    assert mlflow_registry.aliases(bench.settings, NAME) == {}


@pytest.mark.parametrize("number", [None, float("nan")])
def test_a_missing_number_is_a_hold(bench: Bench, number: float | None) -> None:
    bench.run("train_model", EARLY)
    bench.edit_result("train_model", EARLY, metrics={"yardstick_auc": number})
    outputs = bench.run("evaluate_model", EARLY).outputs
    assert outputs["verdict"] == "hold"
    (reason,) = outputs["reasons"]
    assert reason.startswith("AUC over the logistic baseline is not computable. Judge on more")
    assert bench.records.models.get(NAME, 1).state == "candidate"  # type: ignore[union-attr]


def test_censored_decisions_above_the_limit_are_a_hold(bench: Bench) -> None:
    def withdraw(columns: dict[str, Any]) -> None:
        columns["label"] = [
            None if index % 10 == 0 else value for index, value in enumerate(columns["label"])
        ]

    bench.write(withdraw, recorded=60)
    outputs = bench.judged(EARLY)
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
    assert bench.judged(EARLY)["counts"]["censored_share"] == pytest.approx(315 / 2970)
    window(bench, "20d")
    outputs = bench.judged(MIDDLE)
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
    outputs = bench.judged(EARLY)
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
    first = bench.judged(EARLY)
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
    outputs = bench.judged(EARLY)
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
    assert bench.run("evaluate_model", EARLY).reused
    part, _, name = number.partition(".")
    result = bench.records.results.get(NAME, EARLY, "train_model")
    assert result is not None
    bench.edit_result("train_model", EARLY, **{part: {name: result.outputs[part][name] + 1}})
    assert not bench.run("evaluate_model", EARLY).reused


@pytest.fixture(scope="module")
def judged(base: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = base.copy(tmp_path_factory.mktemp("judged") / "home")
    assert made.judged(EARLY)["verdict"] == "pass"
    return made


def test_an_equal_model_of_a_second_training_is_judged_on_the_second_rows(bench: Bench) -> None:
    """The evaluation rows touch no byte of a model, whose manifest on record tells of its first
    training.
    """
    first = bench.judged(EARLY)

    def restate(columns: dict[str, Any]) -> None:
        late = columns["event_timestamp"] >= np.datetime64("2026-01-28T12:00")
        columns["label"] = np.where(late, 1 - columns["label"], columns["label"])

    bench.write(restate, recorded=60)
    again = bench.judged(EARLY)
    assert (again["version"], again["model_digest"]) == (first["version"], first["model_digest"])
    assert again["metrics"]["auc"] == pytest.approx(1 - first["metrics"]["auc"], abs=1e-9)
    assert again["verdict"] == "fail"


def test_a_backfill_on_an_empty_installation_changes_no_live_state(bench: Bench) -> None:
    outputs = bench.judged(EARLY, mode="backfill")
    assert outputs["verdict"] == "pass"
    assert bench.records.routes.get(NAME).generation == 0
    assert mlflow_registry.aliases(bench.settings, NAME) == {}
    risen = bench.run("evaluate_model", EARLY, mode="live")
    assert (risen.reused, risen.effects["challenger"]) == (False, 1)


def test_a_verdict_that_was_overtaken_makes_no_challenger(bench: Bench) -> None:
    bench.run("train_model", EARLY)
    bench.judged(LATE)
    bench.release(2, LATE)
    report = bench.run("evaluate_model", EARLY)
    assert "challenger" not in report.effects
    assert mlflow_registry.aliases(bench.settings, NAME) == {"champion": 2}


def test_force_gives_the_same_judgement(bench: Bench) -> None:
    bench.judged(EARLY)
    assert bench.run("evaluate_model", EARLY, force=True).reason == "equal to the record"
    assert len(bench.records.audit.entries(NAME, action="model.judged")) == 1


def test_the_report_needs_nothing_but_its_scripts_and_escapes_the_title(bench: Bench) -> None:
    report = Path(bench.judged(EARLY)["report"])
    text = report.read_text()
    assert report == bench.home / "reports" / NAME / EARLY / "evaluation.html"
    assert "<b>& more" not in text
    assert "Visits &lt;b&gt;&amp; more" in text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(addresses) == 2
    for address in addresses:
        assert (report.parent / address).resolve().parent == bench.home / "reports" / "_assets"
        assert (report.parent / address).is_file()


def test_a_report_of_nothing_is_still_a_page(bench: Bench) -> None:
    bench.configure(min_rows=5000)
    text = Path(bench.judged(EARLY)["report"]).read_text()
    assert "no candidate" in text
    assert "too few mature rows" in text


def test_the_bundle_that_is_judged_is_the_one_on_record(bench: Bench) -> None:
    bench.run("train_model", EARLY)
    model = bench.model(EARLY)
    files = {
        name: (Path(model.bundle) / name).read_bytes()
        for name in ("model.txt", "schema.json", "golden.json")
    }
    assert digest_of(files) == model.model_digest
    (Path(model.bundle) / "extra.pkl").write_bytes(b"x")
    report = bench.run("evaluate_model", EARLY)
    assert (report.state, report.outputs["verdict"]) == ("unreadable", "hold")
    assert "extra.pkl" in report.reason
    (Path(model.bundle) / "extra.pkl").unlink()
    assert bench.run("evaluate_model", EARLY).state == "done"


def test_what_is_recorded_is_read_as_it_is(judged: Bench) -> None:
    """Structs leave out what a record lacks and add nothing: a record keeps its digest."""
    for stage, kind in (("train_model", TrainingOutputs), ("evaluate_model", EvaluationOutputs)):
        result = judged.records.results.get(NAME, EARLY, stage)
        assert result is not None
        assert kind.of(result).plain() == result.outputs
    model = judged.model(EARLY)
    assert Manifest.of_model(model).plain() == model.manifest


def test_records_of_before_ids_and_shares_are_read() -> None:
    """A version that recorded less is judged by what is there; what is not there is not known."""
    trained = Recorded({"candidate": 3, "version": 3, "counts": {"mature": 9}, "new": "unknown"})
    assert TrainingOutputs.of(trained).model_version == 3
    assert TrainingOutputs.of(trained).counts.censored_share_judged is None
    check = {"name": "AUC", "value": 0.7, "limit": 0.6, "passed": True, "reason": ""}
    old = EvaluationOutputs.of(Recorded({"verdict": "pass", "checks": [check], "opponent": None}))
    assert old.checks == [Check(id="", name="AUC", value=0.7, limit=0.6, passed=True)]
    assert EvaluationOutputs.of(Recorded({"error": "Busy"})).verdict == "hold"
    with pytest.raises(ArtefactError, match="run the stage again"):
        EvaluationOutputs.of(Recorded({"verdict": "pass", "opponent": "one"}))


class Recorded(NamedTuple):
    outputs: dict[str, Any]
