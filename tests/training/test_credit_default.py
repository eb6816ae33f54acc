"""The UCI use case on the real data: what arrives when, what a decision sees, and how well it
can be predicted.
"""

from __future__ import annotations

import pytest

from include.config.settings import ROOT, Settings
from include.features import feature_sets, frames
from include.features.spine import build_spine
from include.point_in_time import partitions
from tests.builders import stored
from tests.builders.installation import Installation

DATA = Settings().data_dir / "uci_credit_default"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not DATA.is_dir(), reason=f"the UCI data is not in {DATA}; set EVERGREEN_DATA_DIR"
    ),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    home = tmp_path_factory.mktemp("uci")
    (home / "usecases").mkdir()
    (home / "usecases" / "credit_default.yaml").write_text(
        (ROOT / "include" / "usecases" / "credit_default.yaml").read_text()
    )
    installation = Installation(home, "credit_default")
    reports = installation.load("2005-04-01", "2005-10-01")
    assert {report.state for report in reports} == {"done"}
    return installation


def test_statements_arrive_by_month_and_the_labels_in_october(made: Installation) -> None:
    for key in made.keys("2005-04-01", "2005-10-01"):
        sources = made.result("validate_data", key).outputs["sources"]
        rows = {name: fact["rows"] for name, fact in sources.items() if name != "clients"}
        assert rows == ({"outcomes": 30_000} if key == "2005-10-01" else {"statements": 30_000})
        assert sources["clients"]["version"] == "2005-04-01"
        assert {fact["quarantined"] for fact in sources.values()} == {0}


def test_the_decisions_of_4_october_see_septembers_statement_and_count_lags_in_statements(
    made: Installation,
) -> None:
    views = {view.name: view for view in feature_sets.current(made.use_case).views}
    rows = (
        made.lake.read(views["statements"].table("credit_default"), keys=["2005-09-01"])
        .to_pandas()
        .set_index("client_id")
    )
    raw = made.lake.read(stored.table(made.lake, "credit_default/curated/statements")).to_pandas()
    newest = raw.sort_values("event_timestamp").groupby("client_id").pay_status.last()
    assert (rows.pay_status_1 == newest.loc[rows.index]).all()
    assert rows.pay_status_6.notna().all()
    assert str(rows.event_timestamp.iloc[0]) == "2005-10-04 00:00:00+00:00"


def test_out_of_fold_auc_of_the_training_function_is_good_and_no_leak(made: Installation) -> None:
    from tests.builders.out_of_fold import out_of_fold_auc

    use_case, current = made.use_case, feature_sets.current(made.use_case)
    spine = build_spine(made.lake, use_case, partitions.period(use_case, "2005-10-01").as_of)
    frame = frames.training_frame(
        made.settings,
        use_case,
        current,
        spine,
        frames.table_versions(made.lake, use_case, current),
        records=made.records,
    )
    assert len(frame) == 30_000
    assert 0.775 <= out_of_fold_auc(frame, use_case) <= 0.80
