"""The drift stage over a real lake and real records: which reference, which verdict, what the
report may not do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from include.errors import MissingPartition
from include.monitoring import check_drift
from include.monitoring.psi import Stability
from include.pipeline.drift_outputs import DriftOutputs
from tests.builders.monitoring import AT, KEYS, House


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("EVERGREEN_HOME", str(tmp_path / "var"))
    built = House(tmp_path)
    yield built
    built.records.close()


def test_a_first_partition_has_no_reference_and_is_held(house: House) -> None:
    house.day(KEYS[0])
    report = house.run(KEYS[0])
    assert (report.state, report.outputs["verdict"]) == ("held", "hold")
    assert "no reference" in report.reason
    (entry,) = house.records.audit.entries("shop", action="drift.judged")
    assert entry.details["verdict"] == "hold"


def test_the_partition_before_is_the_reference_and_marked_so(house: House) -> None:
    house.day(KEYS[0])
    house.day(KEYS[1])
    report = house.run(KEYS[1])
    assert (report.state, report.outputs["verdict"]) == ("done", "pass"), report.reason
    assert report.outputs["reference"] == {"kind": "before", "partition": KEYS[0], "version": None}
    assert set(report.outputs["features"]) == {"amount", "kind", "channel"}
    page = Path(report.outputs["report"]).read_text()
    assert f"against the partition before, {KEYS[0]}" in page
    assert 'href="drift-spend.html"' in page
    assert 'href="drift-visits.html"' in page
    assert house.run(KEYS[1]).reused


def test_a_shift_is_drift_and_names_the_feature(house: House) -> None:
    house.day(KEYS[0])
    house.day(KEYS[1], mean=60)
    report = house.run(KEYS[1])
    assert (report.state, report.outputs["verdict"]) == ("done", "drift")
    assert report.outputs["reasons"][0].startswith("amount: PSI ")
    assert len(report.outputs["reasons"]) == 1


def test_the_opponents_sample_is_the_reference_if_it_is_older(house: House) -> None:
    """The days drift slowly: each is like the one before, and far from the sample of the
    champion.
    """
    for number, key in enumerate(KEYS[:4]):
        house.day(key, mean=50 + 5 * number)
    house.model(1, KEYS[0])
    house.record(KEYS[3], "evaluate_model", {"verdict": "pass", "opponent": 1})
    report = house.run(KEYS[3])
    assert report.outputs["reference"] == {"kind": "opponent", "partition": KEYS[0], "version": 1}
    assert report.outputs["verdict"] == "drift"


@pytest.mark.parametrize("trained_on", [KEYS[2], KEYS[4]])
def test_an_opponent_of_the_same_or_a_newer_partition_is_no_reference(
    house: House, trained_on: str
) -> None:
    house.day(KEYS[0])
    house.day(KEYS[1])
    house.model(1, trained_on)
    house.day(KEYS[2], opponent=1)
    assert house.run(KEYS[2]).outputs["reference"]["kind"] == "before"


def test_event_views_compare_new_rows_with_those_of_the_training_window(house: House) -> None:
    """The reference sample says `x` alone, but the rows of the window are x and y like today's:
    no drift in channel.
    """
    for key in KEYS[:3]:
        house.day(key)
    house.model(1, KEYS[1])
    house.record(KEYS[2], "evaluate_model", {"verdict": "pass", "opponent": 1})
    assert house.run(KEYS[2]).outputs["features"]["channel"]["psi"] < 0.1
    house.day(KEYS[3], channels="z", opponent=1)
    report = house.run(KEYS[3])
    assert report.outputs["reference"]["kind"] == "opponent"
    assert report.outputs["reasons"] == [
        f"channel: PSI {report.outputs['features']['channel']['psi']:.3f} is above 0.2"
    ]


def test_a_lost_sample_is_never_a_pass_and_is_looked_at_again(house: House) -> None:
    house.day(KEYS[0])
    house.model(1, KEYS[0])
    sample = house.settings.home / "reference-1.parquet"
    kept = sample.read_bytes()
    sample.write_bytes(b"PAR1")
    house.day(KEYS[1], opponent=1)
    report = house.run(KEYS[1])
    assert (report.state, report.outputs["verdict"]) == ("unreadable", "hold")
    assert "cannot be read" in report.reason
    sample.write_bytes(kept)
    report = house.run(KEYS[1])
    assert (report.state, report.reused) == ("done", False)
    assert house.run(KEYS[1]).reused


def test_not_computable_is_a_hold_unless_something_drifts() -> None:
    known, unknown = Stability(0.01, 10), Stability(None, 0, note="fewer than 50 rows on a side")
    assert check_drift.decide_verdict({"a": known}, 0.2) == ("pass", [])
    assert check_drift.decide_verdict({"a": known, "b": unknown}, 0.2) == (
        "hold",
        ["b: not computable, fewer than 50 rows on a side"],
    )
    assert check_drift.decide_verdict({"a": Stability(0.21, 10), "b": unknown}, 0.2)[0] == "drift"
    assert check_drift.decide_verdict({"a": Stability(0.2, 10)}, 0.2)[0] == "pass"
    assert check_drift.decide_verdict({}, 0.2)[0] == "hold"


def test_a_partition_that_is_not_judged_waits(house: House) -> None:
    house.records.partitions.raise_to(
        "shop", KEYS[0], mode="backfill", target="judged", actor="test", at=AT
    )
    with pytest.raises(MissingPartition, match="evaluate_model is not done"):
        house.run(KEYS[0])


def test_a_report_that_fails_changes_no_verdict(house: House) -> None:
    house.day(KEYS[0])
    house.day(KEYS[1])
    path = house.settings.home / "reports" / "shop" / KEYS[1]
    path.parent.mkdir(parents=True)
    path.write_text("a file stands where the folder should be")
    report = house.run(KEYS[1])
    assert (report.outputs["verdict"], report.outputs["report"]) == ("pass", None)


def test_a_hold_without_a_reference_has_a_page_that_says_so(house: House) -> None:
    house.day(KEYS[0])
    page = Path(house.run(KEYS[0]).outputs["report"]).read_text()
    assert "no reference: no opponent of an older partition" in page
    assert "Population stability" not in page


def test_what_is_recorded_is_read_as_it_is(house: House) -> None:
    for key in KEYS[:2]:
        house.day(key)
        house.run(key)
        result = house.records.results.get("shop", key, "check_drift")
        assert result is not None
        assert DriftOutputs.of(result).plain() == result.outputs
