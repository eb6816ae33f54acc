"""The gate: first, equal and worse models, too few rows, NaN, a champion that has seen the rows; verdicts and effects."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from include import evaluation_report, registry
from include.errors import ArtefactError, ConfigError
from include.predictor import digest_of
from include.records import AuditEntry
from include.records_schema import ModelRow
from tests.judging import NAME, NOW, Bench, new_bench

FIRST, SECOND, THIRD = "2026-02-05", "2026-02-06", "2026-02-07"
QUIET = ("2026-02-20", "2026-02-21")  # days after the last decision matured: both train on the same rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = new_bench(tmp_path_factory.mktemp("base") / "home")
    made.write(recorded=60)
    return made


@pytest.fixture
def bench(base: Bench, tmp_path: Path) -> Bench:
    return base.copy(tmp_path / "home")


def edit(bench: Bench, version: int, **parts: Any) -> None:
    """Change parts of a model's manifest, as another history would have left them."""
    with bench.records.transaction() as session:
        row = session.get_one(ModelRow, (NAME, version))
        row.manifest = {**row.manifest, **{name: {**row.manifest[name], **value} for name, value in parts.items()}}


def roll_back(bench: Bench) -> None:
    route = bench.records.rollback(NAME, entry=AuditEntry("release.rolled_back", NAME, "x", "test", {}, at=NOW))
    registry.mirror_aliases(bench.settings, NAME, route)


def test_the_first_model_passes_on_absolute_checks_and_becomes_challenger(bench: Bench) -> None:
    outputs = bench.judged(FIRST)
    assert (outputs["verdict"], outputs["opponent"], outputs["reasons"]) == ("pass", None, [])
    assert [check["passed"] for check in outputs["checks"]] == [True] * 6
    assert bench.records.model(NAME, 1).state == "challenger"  # type: ignore[union-attr]
    assert registry.aliases(bench.settings, NAME) == {"challenger": 1}
    judged = bench.records.entries(NAME, action="model.judged")
    assert (len(judged), judged[0].subject, judged[0].details["verdict"]) == (1, FIRST, "pass")
    assert len(bench.records.entries(NAME, action="model.challenger")) == 1
    assert bench.records.verify() is None


def test_an_as_good_model_is_compared_with_the_champion_on_the_same_rows(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    outputs = bench.judged(SECOND)
    assert (outputs["verdict"], outputs["opponent"]) == ("pass", 1)
    metrics = outputs["metrics"]
    assert metrics["difference"] == pytest.approx(metrics["auc"] - metrics["opponent_auc"], abs=1e-12)
    assert metrics["difference_low"] <= metrics["difference"] <= metrics["difference_high"]
    assert registry.aliases(bench.settings, NAME) == {"champion": 1, "challenger": 2}


def test_an_equal_model_has_nothing_to_release(bench: Bench) -> None:
    bench.judged(QUIET[0])
    bench.release(1, QUIET[0])
    outputs = bench.judged(QUIET[1])
    assert outputs["model_digest"] == bench.model(QUIET[0]).model_digest
    assert outputs["verdict"] == "hold"
    assert outputs["reasons"] == ["equal to version 1, which serves: nothing to release"]
    assert bench.records.model(NAME, 2).state == "candidate"  # type: ignore[union-attr]


def worse(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    text = (bench.home / "usecases" / "visits.yaml").read_text()
    text = text.replace("training: {", "training: {exclude: [income, visits], ").replace("min_auc: 0.6", "min_auc: 0.4")
    (bench.home / "usecases" / "visits.yaml").write_text(text)


def test_a_worse_model_fails_with_its_interval_and_changes_nothing_live(bench: Bench) -> None:
    worse(bench)
    outputs = bench.judged(SECOND)
    assert outputs["verdict"] == "fail"
    (reason,) = outputs["reasons"]
    assert re.search(r"AUC difference to version 1, lower end is -0\.\d+ .*must be above -0\.0100", reason)
    assert bench.records.model(NAME, 2).state == "candidate"  # type: ignore[union-attr]
    assert registry.aliases(bench.settings, NAME) == {"champion": 1}
    report = bench.run("evaluation", SECOND)
    assert (report.state, report.reused) == ("done", True), "a refusal is a success, and terminal"


def test_a_model_below_the_absolute_limits_fails_each_by_name(bench: Bench) -> None:
    def later_more(columns: dict[str, Any]) -> None:
        newest = np.arange(len(columns["label"])) > 0.75 * len(columns["label"])
        columns["label"] = np.where(newest & (np.arange(len(newest)) % 2 == 0), 1.0, columns["label"])

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
    bench.run("training", SECOND)
    bench.configure(min_rows=300)
    held = bench.run("evaluation", SECOND).outputs
    assert (held["verdict"], held["version"]) == ("hold", 1)
    assert "too few mature rows" in held["reasons"][0]
    assert registry.aliases(bench.settings, NAME) == {}


@pytest.mark.parametrize("number", [None, float("nan")])
def test_a_missing_number_is_a_hold(bench: Bench, number: float | None) -> None:
    bench.run("training", FIRST)
    edit(bench, 1, metrics={"yardstick_auc": number})
    outputs = bench.run("evaluation", FIRST).outputs
    assert outputs["verdict"] == "hold"
    assert outputs["reasons"] == ["AUC over the logistic yardstick is not computable"]
    assert bench.records.model(NAME, 1).state == "candidate"  # type: ignore[union-attr]


def test_a_champion_that_has_seen_the_rows_is_a_hold(bench: Bench) -> None:
    bench.judged("2026-02-15")
    bench.release(1, FIRST)
    outputs = bench.judged(SECOND)
    assert outputs["verdict"] == "hold"
    assert re.fullmatch(r"champion has seen these rows: version 1 was trained or tuned on \d+ of 630", outputs["reasons"][0])


def test_a_champion_whose_bundle_cannot_be_read_is_no_verdict_and_is_judged_again(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.run("training", SECOND)
    bundle = Path(bench.model(FIRST).bundle)
    away = bundle.rename(bundle.with_name("away"))
    for _ in range(2):
        report = bench.run("evaluation", SECOND)
        assert (report.state, report.reused, report.outputs["verdict"]) == ("unreadable", False, "hold")
        assert report.reason.startswith("version 1 cannot be asked: ")
    assert len(bench.records.entries(NAME, action="evaluation.unreadable")) == 1
    assert [entry.subject for entry in bench.records.entries(NAME, action="model.judged")] == [FIRST]
    with pytest.raises(ConfigError, match="no record to compare with"):
        bench.run("evaluation", SECOND, force=True)
    away.rename(bundle)
    report = bench.run("evaluation", SECOND)
    assert (report.state, report.reused) == ("done", False)
    assert report.outputs["opponent"] == 1
    assert bench.run("evaluation", SECOND).reused
    assert bench.run("evaluation", SECOND, force=True).reason == "equal to the record"


def test_censored_decisions_above_the_limit_are_a_hold(bench: Bench) -> None:
    def withdraw(columns: dict[str, Any]) -> None:
        columns["label"] = [None if index % 10 == 0 else value for index, value in enumerate(columns["label"])]

    bench.write(withdraw, recorded=60)
    outputs = bench.judged(FIRST)
    assert outputs["verdict"] == "hold"
    assert "past their delay without a label are 10.0% of all, the limit is 5.0%" in outputs["reasons"][0]


def test_the_opponent_is_recorded_and_reused_by_reruns(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.judged(SECOND)
    bench.release(2, SECOND)
    assert bench.run("evaluation", SECOND).reused, "the champion is the candidate itself now"
    bench.forget_result("evaluation", SECOND)
    assert bench.run("evaluation", SECOND).outputs["opponent"] == 1
    assert bench.records.entries(NAME, action="model.judged")[-1].details["verdict"] == "pass"


def test_a_passed_candidate_is_judged_again_where_another_champion_came_between(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.judged(SECOND)
    bench.judged(THIRD)
    bench.release(2, SECOND)
    again = bench.run("evaluation", THIRD)
    assert (again.reused, again.outputs["opponent"]) == (False, 2)
    opponent = bench.records.opponent(NAME, bench.model(THIRD).model_digest, mode="live")
    assert opponent is not None
    assert opponent.version == 2


def test_a_refused_candidate_keeps_its_verdict_whoever_serves_later(bench: Bench) -> None:
    worse(bench)
    bench.judged(SECOND)
    bench.release(2, SECOND)  # by force of a person
    bench.release(1, SECOND)
    assert bench.run("evaluation", SECOND).reused


def test_a_backfill_meets_the_champion_of_the_newest_older_partition_and_touches_nothing_live(bench: Bench) -> None:
    for version, key in enumerate((FIRST, THIRD, "2026-02-09"), start=1):
        bench.judged(key)
        bench.release(version, key)
    live = (bench.records.route(NAME), registry.aliases(bench.settings, NAME))
    outputs = bench.judged("2026-02-08", mode="backfill")
    assert outputs["opponent"] == 2
    assert bench.judged(SECOND, mode="backfill")["opponent"] == 1
    assert bench.judged("2026-02-03", mode="backfill")["opponent"] is None
    assert (bench.records.route(NAME), registry.aliases(bench.settings, NAME)) == live
    assert [model.state for model in bench.records.models(NAME)] == ["released"] * 3 + ["candidate"] * 3


def test_a_backfill_on_an_empty_installation_changes_no_live_state(bench: Bench) -> None:
    outputs = bench.judged(FIRST, mode="backfill")
    assert outputs["verdict"] == "pass"
    assert bench.records.route(NAME).generation == 0
    assert registry.aliases(bench.settings, NAME) == {}
    risen = bench.run("evaluation", FIRST, mode="live")
    assert (risen.reused, risen.effects["challenger"]) == (False, 1)


def test_what_was_trained_before_a_rollback_and_what_was_rolled_back_is_a_hold(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.judged(SECOND)
    bench.release(2, SECOND)
    bench.run("training", THIRD)
    roll_back(bench)
    outputs = bench.run("evaluation", THIRD).outputs
    assert outputs["verdict"] == "hold"
    assert "trained in generation 2, before the rollback of generation 3" in outputs["reasons"][0]
    again = bench.run("evaluation", SECOND)
    assert (again.reused, again.outputs["verdict"]) == (False, "hold")
    assert "was rolled back and is on hold" in "; ".join(again.outputs["reasons"])
    assert registry.aliases(bench.settings, NAME) == {"champion": 1}
    digest = bench.model(SECOND).model_digest
    bench.records.lift_hold(NAME, digest, entry=AuditEntry("release.hold_lifted", NAME, "2", "person", {}, at=NOW))
    lifted = bench.run("evaluation", SECOND).outputs
    assert (lifted["verdict"], lifted["opponent"], lifted["generation"]) == ("pass", 1, 4)


def test_a_verdict_that_was_overtaken_makes_no_challenger(bench: Bench) -> None:
    bench.run("training", FIRST)
    bench.judged(THIRD)
    bench.release(2, THIRD)
    report = bench.run("evaluation", FIRST)
    assert "challenger" not in report.effects
    assert registry.aliases(bench.settings, NAME) == {"champion": 2}


def test_the_opponent_is_scored_on_its_own_feature_set(bench: Bench) -> None:
    bench.judged(FIRST)
    bench.release(1, FIRST)
    bench.configure(more=", extra: float64")
    noise = np.random.default_rng(1)
    bench.write(lambda columns: columns.update(extra=noise.normal(size=len(columns["label"]))), recorded=60)
    outputs = bench.judged(SECOND)
    assert bench.model(SECOND).feature_set != bench.model(FIRST).feature_set
    assert (outputs["opponent"], outputs["verdict"]) == (1, "pass"), outputs["reasons"]
    assert outputs["metrics"]["opponent_auc"] > 0.7


def test_force_gives_the_same_judgement(bench: Bench) -> None:
    bench.judged(FIRST)
    assert bench.run("evaluation", FIRST, force=True).reason == "equal to the record"
    assert len(bench.records.entries(NAME, action="model.judged")) == 1


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
    judged = {**outputs, "reasons": [bad], "checks": [{**outputs["checks"][0], "name": bad, "reason": bad}]}
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
    bench.run("training", FIRST)
    model = bench.model(FIRST)
    files = {name: (Path(model.bundle) / name).read_bytes() for name in ("model.txt", "schema.json", "golden.json")}
    assert digest_of(files) == model.model_digest
    (Path(model.bundle) / "extra.pkl").write_bytes(b"x")
    with pytest.raises(ArtefactError, match="can run code"):
        bench.run("evaluation", FIRST)
    assert bench.records.result(NAME, FIRST, "evaluation").state == "failed"  # type: ignore[union-attr]
