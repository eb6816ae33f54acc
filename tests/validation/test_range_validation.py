"""A partition is written with its result as a whole, or blocked with its quarantine alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from include.errors import Unavailable
from tests.builders import stored
from tests.builders.intake import GOOD, HEAD, Intake


def test_a_sound_partition_passes_with_result_and_page(made: Intake) -> None:
    report = made.validate()
    assert (report.state, report.outputs["verdict"], report.reason) == ("done", "pass", "")
    folder = Path(report.outputs["report"])
    result = json.loads((folder / "result.json").read_text())
    assert result["success"] is True
    assert result["statistics"]["evaluated_expectations"] == len(result["results"]) > 8
    page = (folder / "index.html").read_text()
    assert "<title>shop 2026-01-01</title>" in page
    assert "share of bad rows" in page


def test_a_blocked_partition_leaves_nothing_but_its_quarantine(made: Intake) -> None:
    """Fault 37a: above max_bad the partition blocks; the reason names rule, sample, file and
    row.
    """
    made.validate()
    assert len(made.curated("2026-01-01")) == 2
    made.put(HEAD + GOOD.replace(",20,0", ",abc,0"))
    made.ingest(restate="again")
    report = made.run("validate_data", "2026-01-01")
    assert (report.state, report.outputs["verdict"]) == ("blocked", "block")
    for said in (
        "1 of 2 rows are bad, more than max_bad 1.00%",
        "amount: not_float64 (1 rows, such as 'abc'; orders.csv row 2)",
    ):
        assert said in report.reason
    assert made.curated("2026-01-01") == []
    assert made.rules("2026-01-01") == {2: "amount: not_float64"}
    assert len(made.lake.read(stored.table(made.lake, "shop/labels"), keys=["2026-01-01"])) == 0
    made.define(more="max_bad: 0.5")
    again = made.run("validate_data", "2026-01-01")
    assert (again.state, again.outputs["verdict"]) == ("done", "quarantine")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("min_rows: 3", "2 rows came, expected are 3 to any number"),
        ("max_rows: 1", "2 rows came, expected are 1 to 1"),
    ],
)
def test_the_row_count_has_its_band(made: Intake, more: str, said: str) -> None:
    made.define(more=more)
    report = made.validate()
    assert report.state == "blocked"
    assert said in report.reason


def test_a_folder_that_cannot_be_written_is_named_with_a_remedy(made: Intake) -> None:
    made.ingest()
    (made.settings.home / "validation").write_text("in the way")
    with pytest.raises(
        Unavailable, match=r"validation/shop/2026-01-01/result.json in .* cannot be"
    ):
        made.run("validate_data", "2026-01-01")
