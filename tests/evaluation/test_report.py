"""The evaluation report: what it shows, and that nothing of it can be code."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import plotly.graph_objects as go
import pytest

from include.config.use_case import UseCase
from include.evaluation import report
from include.pipeline.evaluation_outputs import Check, EvaluationOutputs
from include.pipeline.training_outputs import Counts, LeakFinding, Leaks, Manifest, PartCount, Split
from include.training.leak_findings import Finding
from tests.builders.judging import EARLY, new_bench

LABELS = np.array([0.0, 1.0] * 50)
SCORES = np.clip(LABELS * 0.3 + np.linspace(0.05, 0.6, 100), 0, 1)
ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def use_case(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return new_bench(tmp_path_factory.mktemp("home")).use_case


def outputs_of(**more: Any) -> EvaluationOutputs:
    """Outputs of a pass against version 1."""
    return EvaluationOutputs(verdict="pass", version=2, opponent=1, **more)


def figures(page: str) -> list[dict[str, Any]]:
    """The figures of a page, as its script reads them."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(text) for text in found]


def test_whatever_comes_from_data_is_escaped(use_case: UseCase) -> None:
    check = Check(id="auc", name=ATTACK, value=0.5, limit=0.6, passed=False, reason=ATTACK)
    manifest = Manifest(
        feature_auc={ATTACK: 0.9}, git_commit=ATTACK, counts=Counts(mature=3), libraries={}
    )
    curves = report.curves(np.array([0.0, 1.0]), np.array([0.1, 0.9]), None)
    page = report.page(
        use_case, EARLY, "live", outputs_of(reasons=[ATTACK], checks=[check]), manifest, curves
    )
    assert set(re.findall("<script[^>]*>", page)) == {'<script type="application/json">'}
    assert page.count("&lt;script&gt;") == 5, "reason, check's name and reason, feature, commit"
    assert figures(page)[-1]["data"][0]["y"] == ["&lt;script&gt;alert(1)&lt;/script&gt;"], (
        "plotly.js takes some tags for markup"
    )
    HTMLParser().feed(page)


def test_figures_are_such_as_plotly_knows(use_case: UseCase) -> None:
    curves = report.curves(LABELS, SCORES, (LABELS[:60], SCORES[::-1][:60]))
    manifest = Manifest(
        feature_auc={"income": 0.7, "region": 0.5}, leaks=Leaks(gains={"region": 0.1})
    )
    page = report.page(use_case, EARLY, "live", outputs_of(), manifest, curves)
    drawn = figures(page)
    assert len(drawn) == 4
    for figure in drawn:
        text = re.sub(r'"--[a-z]+"', '"red"', json.dumps(figure))  # names of the style's colours
        go.Figure(json.loads(text))
    assert [trace["name"] for trace in drawn[0]["data"]] == ["by chance", "candidate", "opponent"]
    assert drawn[3]["data"][0]["y"] == ["region", "income"], "by what is lost without it first"
    assert sum(drawn[2]["data"][0]["y"]) == sum(drawn[2]["data"][1]["y"]) == 50


def test_the_numbers_of_each_chart_stand_beside_it(use_case: UseCase) -> None:
    curves = report.curves(LABELS, SCORES, None)
    page = report.page(use_case, EARLY, "live", outputs_of(), Manifest(), curves)
    assert page.count("<details open>") == page.count('role="img"') == 3
    roc = report.content(use_case, EARLY, "live", outputs_of(), Manifest(), curves)["charts"][0]
    assert roc.columns == ["False positive rate", "True positive rate, candidate"]
    assert [row[0] for row in roc.rows] == ["1%", "5%", "10%", "20%", "30%", "50%"]
    rates = [float(row[1].rstrip("%")) for row in roc.rows]
    assert rates == sorted(rates)


def test_scores_that_are_no_numbers_are_not_drawn(use_case: UseCase) -> None:
    assert report.curves(LABELS, np.full(100, np.nan), None) == report.NO_CURVES
    nothing = EvaluationOutputs(verdict="hold", version=None, opponent=None)
    page = report.page(use_case, EARLY, "live", nothing, Manifest(), report.NO_CURVES)
    assert figures(page) == []
    assert "Judgement of no candidate" in page
    assert "no opponent" in page


def test_a_metric_that_is_not_computable_is_a_dash(use_case: UseCase) -> None:
    outputs = outputs_of(metrics={"auc": float("nan"), "yardstick_auc": None})
    page = report.page(use_case, EARLY, "live", outputs, Manifest(), report.NO_CURVES)
    assert page.count("<dd>\N{EN DASH}</dd>") == 6


def test_where_the_rows_come_from_is_told_in_words(use_case: UseCase) -> None:
    counts = Counts(
        train=PartCount(rows=1800, positive=900),
        evaluation=PartCount(rows=630, positive=63),
        immature=90,
        decisions=3150,
        decisions_judged=630,
        censored=315,
        censored_judged=63,
        censored_share=0.1,
        censored_share_judged=0.1,
    )
    split = Split(by="time", gap_when_judged=259_200.0, gap_when_serving=90.0)
    outputs = outputs_of(left_out=12, compared=618)
    content = report.content(
        use_case, EARLY, "live", outputs, Manifest(counts=counts, split=split), report.NO_CURVES
    )
    told = dict(content["provenance"])
    assert told["Rows"] == "train 1,800, evaluation 630"
    assert told["Not used"] == "90 immature, 315 censored, 0 embargoed"
    assert told["Gap when judged"] == "3 d 0 h"
    assert told["Gap when serving"] == "0 h 1 min"
    assert (
        told["Without an outcome (censored)"]
        == "window 315 of 3,150 (10.0%); judged 63 of 630 (10.0%)"
    )
    assert told["Left out of the comparison"].startswith("12 rows")
    assert dict(content["tiles_shown"])["Share of outcome 1"] == "10.0%"
    by_hash = msgspec.structs.replace(split, by="hash", gap_when_judged=None)
    content = report.content(
        use_case, EARLY, "live", outputs, Manifest(counts=counts, split=by_hash), report.NO_CURVES
    )
    assert "no embargo" in dict(content["provenance"])["Gap when judged"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "\N{EN DASH}"),
        (0.5, "0.5 s"),
        (59.0, "59 s"),
        (90.0, "0 h 1 min"),
        (7260.0, "2 h 1 min"),
        (100_000.0, "1 d 3 h"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float | None, said: str) -> None:
    assert report.duration(seconds) == said


def test_a_person_is_asked_where_the_random_split_is_far_above_the_newest_decisions() -> None:
    manifest = Manifest(split=Split(by="time"), leaks=Leaks(random_auc=0.95))
    (asked,) = report.questions(manifest, {"auc": 0.8})
    assert "AUC 0.950" in asked
    assert "0.800" in asked
    for by, auc in (("time", 0.93), ("hash", 0.8), ("time", None)):
        other = msgspec.structs.replace(manifest, split=Split(by=by))
        assert report.questions(other, {"auc": auc}) == []


def test_a_person_is_asked_about_findings_that_refused_nothing(
    use_case: UseCase, tmp_path: Path
) -> None:
    finding = Finding("carries", "question", ("<b>",), "<b> carries", "write `x`")
    refused = LeakFinding(kind="id", level="refusal", columns=["a"], evidence="no", remedy="no")
    manifest = Manifest(leaks=Leaks(found=[finding.recorded(), refused]))
    page = report.page(use_case, EARLY, "live", outputs_of(), manifest, report.NO_CURVES)
    assert "<li>&lt;b&gt; carries. write <code>x</code></li>" in page
    assert page.count("<li>") == 1
