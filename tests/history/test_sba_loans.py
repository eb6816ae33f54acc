"""Real loans, each once with its outcome on the row and years late: from one file to an answer by a
drafted YAML alone.

`evergreen new` drafts what a file can tell: key, times, types, the label; an outcome of a loan can
take 26 years, so it asks for a charge-off within a time that can be waited for. Two things a person
must know and write: within how long (here two years), and that `term` is cut short by a charge-off.
"""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from include.config import use_case_file
from include.config.settings import Settings
from include.errors import ConfigError
from include.onboarding import draft as drafting
from include.pipeline.flow import STAGES
from tests.builders import stored
from tests.builders.installation import Installation
from tests.builders.ports import free_port
from tests.builders.serving import Node, until

DATA = Settings().data_dir / "sba_loans"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the loans are not in {DATA}; set EVERGREEN_DATA_DIR"
)
FIRST, LAST, LIVE = "2006-07-01", "2009-05-01", "2009-06-01"
LABEL = """label:
  sql: >-
    SELECT loan_id, event_timestamp,
    least(label_timestamp, event_timestamp + INTERVAL 2 YEAR) AS label_timestamp,
    charged_off = 1 AND label_timestamp <= event_timestamp + INTERVAL 2 YEAR AS label FROM rows
  lookback: 35d
  delay: 731d
features:
"""
GATES = """training: {exclude: [term]}
gates: {min_rows: 50, min_auc: 0.6, over_baseline: -0.05, max_feature_auc: 0.75}
"""


def write_loans(path: Path) -> None:
    """Write one table of the loans of three years with their outcomes; of those that cannot be
    mature every second one.
    """
    sample = f"""
        SELECT a.*, CAST(o.label_timestamp AS TIMESTAMPTZ) AS label_timestamp, o.charged_off
        FROM '{DATA}/applications.parquet' a JOIN '{DATA}/outcomes.parquet' o USING (loan_id)
        WHERE a.event_timestamp >= '2006-07-01' AND a.event_timestamp < '2009-07-01'
            AND (a.event_timestamp < '2007-07-01' OR loan_id % 2 = 0)
        ORDER BY a.event_timestamp, loan_id
    """
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"COPY ({sample}) TO '{path}' (FORMAT parquet)")


def completed(draft: str) -> str:
    """Return the draft as a person leaves it: the question, the months, the gates, and no
    training on `term`.
    """
    text = re.sub(r"^cadence: week", "cadence: month", draft, flags=re.MULTILINE)
    text = re.sub(
        r"^history: \{.*?\}", f"history: {{first: {FIRST}, last: {LIVE}}}", text, flags=re.MULTILINE
    )
    text = re.sub(r"^label:\n.*?^features:\n", LABEL, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^gates:\n.*", GATES, text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    table = tmp_path_factory.mktemp("sba") / "usecases" / "loans.parquet"
    table.parent.mkdir()
    write_loans(table)
    return table, drafting.draft(table, name="sba_loans")[1]


@pytest.fixture(scope="module")
def loans(draft: tuple[Path, str]) -> Installation:
    table, text = draft
    (table.parent / "sba_loans.yaml").write_text(completed(text))
    made = Installation(table.parent.parent, "sba_loans", node_port=free_port())
    assert {report.state for report in made.load(FIRST, LAST)} == {"done"}
    return made


def test_the_draft_guesses_the_roles_and_asks_for_outcomes_that_can_be_waited_for(
    draft: tuple[Path, str],
) -> None:
    case = use_case_file.parse(draft[1], folder=draft[0].parent)
    assert case.entity.key == "loan_id"
    assert case.label.sql is not None
    assert "least(CAST(label_timestamp AS TIMESTAMPTZ)" in case.label.sql
    assert case.label.delay.days == 366, (
        "the last outcome of a loan comes decades later: asked is what comes within a year"
    )
    assert "ASK: Within how long does the outcome count?" in draft[1]
    assert "term" in case.feature_types, "no file says that a column was written after the outcome"
    assert not {"label_timestamp", "charged_off", "loan_id"} & set(case.feature_types)


@pytest.mark.slow
def test_from_the_file_to_an_answer(loans: Installation) -> None:
    node = Node(loans.settings)
    node.start()
    try:
        done = loans.day(LIVE, STAGES, mode="live", target="deployed")
        judged = done["evaluate_model"].outputs
        assert done["deploy_model"].state == "done", judged["reasons"]
        assert 0.6 <= judged["metrics"]["auc"] <= 0.80, (
            "far above .80 would be a leak; with `term` it is"
        )
        until(
            lambda: node.post("/v1/sba_loans/predict", json={"entity": 1}).status == 404,
            what="the model",
        )
        loan = (
            loans.lake.read(stored.table(loans.lake, "sba_loans/curated/rows"), keys=[LIVE])
            .slice(0, 1)
            .to_pylist()[0]["loan_id"]
        )
        answer = node.post("/v1/sba_loans/predict", json={"entity": loan})
        assert answer.status == 200, answer.body
        assert 0 < answer.body["score"] < 1
    finally:
        node.stop()


@pytest.mark.slow
def test_no_outcome_is_known_before_its_time(loans: Installation) -> None:
    """At the end of May 2009 the youngest loan whose two years are over is of May 2007, though
    the file knows them all.
    """
    from include.features.spine import build_spine
    from include.point_in_time import partitions

    spine = build_spine(loans.lake, loans.use_case, partitions.period(loans.use_case, LAST).as_of)
    assert max(spine.rows["event_timestamp"].to_pylist()).strftime("%Y-%m") == "2007-05"
    assert spine.immature > 1000
    assert spine.censored_share < 0.01


@pytest.mark.slow
def test_a_term_that_was_cut_short_by_the_outcome_is_refused_by_the_leak_gate(
    loans: Installation,
) -> None:
    file = loans.settings.usecase_dirs[0] / "sba_loans.yaml"
    text = file.read_text()
    file.write_text(text.replace("training: {exclude: [term]}\n", ""))
    try:
        with pytest.raises(ConfigError, match=r"the outcome leaks through term \(0\.[89]"):
            loans.run("train_model", LIVE, mode="live", target="deployed")
    finally:
        file.write_text(text)
