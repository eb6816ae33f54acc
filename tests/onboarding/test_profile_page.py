"""The profile page: what it shows, that nothing of it can be code, and that it stays small."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pytest

from include.config.use_case import UseCase
from include.onboarding import cohorts, time_periods
from include.onboarding.frame_profile import profile_frame
from include.onboarding.profile_page import DRAWN, NO_TIME, content, write_profile
from include.onboarding.try_data import Trial
from include.reports import page
from include.training.leak_findings import Finding
from tests.builders.shop import Shop

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", tz="UTC")
ATTACK = "</script><img src=x onerror=alert(1)>"
ROWS = 600


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return Shop(tmp_path / "shop").use_case


def trial_of(
    use_case: UseCase, columns: dict[str, pa.Array], step: timedelta = timedelta(hours=8)
) -> Trial:
    """Return what a trial knows of a frame of these features."""
    times = pa.array([FIRST + n * step for n in range(ROWS)], TIME)
    labels = [float(n % 3 == 0) for n in range(ROWS)]
    frame = pa.table({"event_timestamp": times, "label": labels, **columns})
    decided = pa.table({"event_timestamp": times, "lag": [n % 5 for n in range(ROWS)]})
    trial = Trial("2025-06-01", ROWS, rate=1 / 3, immature=0, censored=0)
    trial.profile = profile_frame(
        frame,
        dict.fromkeys(columns, "string"),
        time_periods.divide(frame.column("event_timestamp")),
    )
    as_of = times[-1].as_py() + timedelta(days=1)
    trial.cohorts = cohorts.build_cohorts(use_case, decided, frame, as_of)
    return trial


def rendered(use_case: UseCase, trial: Trial) -> str:
    """Return the page's text."""
    return page.render("profile.html", content(use_case, trial))


def figures(text: str) -> list[dict[str, Any]]:
    """Return the figures of a page, as its script reads them."""
    parts = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    return [json.loads(part) for part in parts]


def mixed() -> dict[str, pa.Array]:
    """Return features of every kind."""
    return {
        "amount": pa.array([n / 7 if n % 9 else None for n in range(ROWS)]),
        "pieces": pa.array([n % 14 for n in range(ROWS)]),
        "paid": pa.array([n % 2 == 0 for n in range(ROWS)]),
        "kind": pa.array([f"k{n % 30}" for n in range(ROWS)]),
        "nothing": pa.array([None] * ROWS, pa.float64()),
    }


def test_whatever_comes_from_data_is_escaped(use_case: UseCase) -> None:
    columns = {"kind": pa.array([ATTACK[: n % 37 + 1] for n in range(ROWS)])}
    trial = trial_of(use_case, columns)
    trial.problems = [f"shop: {ATTACK}"]
    trial.facts = [(ATTACK, ATTACK)]
    trial.found = (Finding("pure", "question", ("kind",), ATTACK, ATTACK),)
    text = rendered(use_case, trial)
    assert "<img" not in text
    assert set(re.findall("<script[^>]*>", text)) == {'<script type="application/json">'}
    assert "://" not in text, "nothing is fetched"
    drawn = json.dumps(figures(text))
    assert "<" not in drawn.replace("<extra></extra>", ""), "plotly.js takes some tags for markup"
    HTMLParser().feed(text)


def test_figures_are_such_as_plotly_knows(use_case: UseCase) -> None:
    drawn = figures(rendered(use_case, trial_of(use_case, mixed())))
    assert len(drawn) == 3 + 1 + len(mixed())
    for figure in drawn:
        go.Figure(json.loads(re.sub(r'"--[a-z]+"', '"red"', json.dumps(figure))))


def test_the_numbers_of_a_drawn_feature_are_all_its_rows(use_case: UseCase) -> None:
    shown = content(use_case, trial_of(use_case, mixed()))
    for column in shown["columns"]:
        rows = sum(int(row[1].replace(",", "")) for row in column["chart"].rows)
        assert rows == ROWS, column["name"]
        for trace in column["chart"].figure["data"]:
            shares = trace["x" if trace["orientation"] == "h" else "y"]
            assert sum(shares) == pytest.approx(1, abs=0.01)
    assert [name for name, _, _ in shown["missing"]["rows"]] == ["nothing", "amount"]
    assert shown["missing"]["whole"] == 3


def test_a_table_without_a_time_says_so_and_draws_caveat(use_case: UseCase) -> None:
    trial = trial_of(use_case, mixed(), timedelta(0))
    shown = content(use_case, trial)
    assert shown["caveat"] == NO_TIME
    assert shown["missing"] is shown["maturity"] is None
    assert shown["features"]["heads"] == []
    assert NO_TIME in rendered(use_case, trial)
    assert content(use_case, trial_of(use_case, mixed()))["caveat"] == ""


def test_problems_come_before_questions_and_a_finding_is_told_once(use_case: UseCase) -> None:
    trial = trial_of(use_case, mixed())
    assert content(use_case, trial)["verdict"] == "no problem found"
    asked = Finding("weight", "question", ("kind",), "kind carries", "Exclude it")
    refused = Finding("pure", "refusal", ("paid",), "paid leaks", "Remove it")
    trial.found = (asked,)
    assert content(use_case, trial)["verdict"] == "1 question"
    trial.found = (asked, refused)
    trial.problems = ["shop: no key", f"shop: {refused}"]
    shown = content(use_case, trial)
    assert (shown["verdict"], shown["colour"]) == ("2 problems", "fail")
    assert shown["reasons"] == ["no key", "paid leaks"]
    assert rendered(use_case, trial).count("Remove it") == 1


def test_without_a_frame_the_page_has_problems_and_facts(use_case: UseCase) -> None:
    trial = Trial("2025-01-01", 0, facts=[("source orders", "0 rows")], problems=["no mature row"])
    text = rendered(use_case, trial)
    assert figures(text) == []
    assert "no mature row" in text
    assert "0 rows" in text


def test_a_page_of_many_columns_is_small(use_case: UseCase, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    columns: dict[str, pa.Array] = {}
    for place in range(DRAWN // 2 + 5):
        columns[f"a_rather_long_name_of_a_number_{place}"] = pa.array(
            [None if n % 7 == 0 else value for n, value in enumerate(rng.normal(size=ROWS) * 1e6)]
        )
        texts = [
            f"a rather long value of a category {value}" for value in rng.integers(0, 99, ROWS)
        ]
        columns[f"a_rather_long_name_of_a_category_{place}"] = pa.array(texts)
    trial = trial_of(use_case, columns)
    path = write_profile(use_case, trial, tmp_path)
    assert path == tmp_path / "reports" / "shop" / "profile.html"
    assert path.stat().st_size < 1_100_000
    text = path.read_text(encoding="utf-8")
    assert "10 more features tell less" in text
    assert all(
        (path.parent / each).is_file() for each in re.findall(r'<script defer src="([^"]+)"', text)
    )
    assert [file.name for file in path.parent.iterdir()] == ["profile.html"]
