"""A CSV by YAML alone where each entity appears once, with its label on the row: from the file
to an answer.
"""

from __future__ import annotations

import random
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.pipeline.flow import STAGES
from tests.builders.installation import DATA_STAGES, Installation
from tests.builders.ports import free_port
from tests.builders.serving import Node, until

YAML = """
name: loans
cadence: month
history: {first: 2025-01-01, last: 2025-12-01}
entity: {name: loan, key: loan_id, type: string}
sources:
  loans:
    path: loans.csv
    event_time: approved_on
    arrival: event + 0s
    key: [loan_id]
    columns:
      loan_id: {type: string, nullable: false, header: "Loan No."}
      amount: {type: float64, min: 0}
      region: {type: string, values: [north, south, east]}
      repaid: {type: int64, values: ["0", "1"]}
label: {source: loans, column: repaid, label_time: event + 60d, delay: 60d}
features:
  application:
    grain: event
    source: loans
    ttl: 600d
    columns: {amount: float64, region: string}
availability: 0s
training: {rounds: 40}
gates: {min_rows: 20, min_auc: 0.6, over_baseline: -0.2, max_calibration_error: 0.4}
"""


def write_loans(path: Path) -> None:
    """Write 1,800 loans of a year: small ones in the north are repaid."""
    draw = random.Random(5)
    lines = ["Loan No.,approved_on,amount,region,repaid"]
    for number in range(1800):
        day = date(2025, 1, 1) + timedelta(days=draw.randrange(364))
        amount, region = round(draw.uniform(1, 100), 2), draw.choice(["north", "south", "east"])
        chance = 0.9 - amount / 150 + (0.1 if region == "north" else -0.1)
        lines.append(f"L-{number:05d},{day},{amount},{region},{int(draw.random() < chance)}")
    path.write_text("\n".join(lines) + "\n")


pytestmark = pytest.mark.slow  # later tests stand on what the first one ran


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    home = tmp_path_factory.mktemp("loans")
    (home / "usecases").mkdir()
    write_loans(home / "usecases" / "loans.csv")
    (home / "usecases" / "loans.yaml").write_text(YAML)
    return Installation(home, "loans", node_port=free_port())


def test_from_the_file_to_an_answer(loans: Installation) -> None:
    reports = loans.load("2025-01-01", "2025-11-01")
    assert {report.state for report in reports} == {"done"}
    ingested = [loans.result("ingest_data", key) for key in loans.keys("2025-01-01", "2025-11-01")]
    rows = sum(result.outputs["sources"]["loans"]["rows"] for result in ingested)
    node = Node(loans.settings)
    node.start()
    try:
        done = loans.day("2025-12-01", STAGES, mode="live", target="deployed")
        assert done["deploy_model"].state == "done", done["evaluate_model"].outputs["reasons"]
        rows += done["ingest_data"].outputs["sources"]["loans"]["rows"]
        assert rows == 1800, "every row of the file is in exactly one partition"
        whole = {"features": {"amount": 5.0, "region": "north"}}
        until(lambda: node.post("/v1/loans/predict", json=whole).status == 200, what="an answer")
        small = node.post("/v1/loans/predict", json=whole).body["score"]
        large = node.post(
            "/v1/loans/predict", json={"features": {"amount": 99.0, "region": "east"}}
        ).body["score"]
        assert small > large
        unseen = node.post(
            "/v1/loans/predict", json={"features": {"amount": 5.0, "region": "west"}}
        )
        assert unseen.status == 200
        assert (
            node.post(
                "/v1/loans/predict", json={"features": {"amount": "a lot", "region": "north"}}
            ).status
            == 422
        )
        assert node.post("/v1/loans/predict", json={"entity": "L-99999"}).status == 404
    finally:
        node.stop()


def test_a_rebuild_of_a_past_month_gives_the_recorded_digests(loans: Installation) -> None:
    for stage in DATA_STAGES:
        assert loans.run(stage, "2025-06-01", force=True).reason == "equal to the record"


def test_labels_that_are_on_the_row_are_not_known_before_their_time(loans: Installation) -> None:
    """At the end of June only loans approved before May have a mature label, although the file
    holds all of them.
    """
    from include.features.spine import build_spine
    from include.point_in_time import partitions

    as_of = partitions.period(loans.use_case, "2025-06-01").as_of
    spine = build_spine(loans.lake, loans.use_case, as_of)
    newest = max(spine.rows["event_timestamp"].to_pylist())
    assert as_of - timedelta(days=63) < newest < as_of - timedelta(days=60)
    assert spine.immature > 0


def test_a_row_that_no_request_brings_is_no_feature_of_the_decision_before_it_arrived(
    tmp_path: Path,
) -> None:
    """Known from the as_of after it arrived, every feature is null at the decision: an error,
    not a model.
    """
    from include.errors import ConfigError

    (tmp_path / "usecases").mkdir()
    write_loans(tmp_path / "usecases" / "loans.csv")
    (tmp_path / "usecases" / "loans.yaml").write_text(
        YAML.replace("event + 0s", "event + 1d").replace(
            "    ttl: 600d", "    visible: at_as_of\n    ttl: 600d"
        )
    )
    late = Installation(tmp_path, "loans")
    late.load("2025-01-01", "2025-11-01")
    late.day("2025-12-01", DATA_STAGES)
    with pytest.raises(ConfigError, match="feature 'amount' of loans is null on all"):
        late.run("train_model", "2025-12-01")
