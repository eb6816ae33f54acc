"""The features stage: equal digests however it is run, and what it needs to be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.errors import MissingPartition
from include.features import materialize_features
from include.pipeline import ranges, status
from tests.builders.shop import DAY, HOUR, T0, YAML, Shop, arrive_week


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def reports(shop: Shop, days: range) -> dict[str, Any]:
    """Return what is recorded of the stage: digests and rows by key."""
    found = shop.records.results.of(
        "shop", stage="materialize_features", keys=[shop.key(day) for day in days]
    )
    return {result.key: (result.digest, result.outputs) for result in found}


@pytest.mark.slow
def test_day_by_day_backwards_again_and_in_one_pass_agree(tmp_path: Path) -> None:
    """Four ways to the same digests, a correction and a late row among the days."""
    ways = [Shop(tmp_path / name) for name in ("forward", "backward", "range")]
    for shop in ways:
        arrive_week(shop)
    forward, backward, ranged = ways
    for day in range(7):
        forward.run(day)
        backward.run(6 - day)
        ranged.ask(day)
    keys = [ranged.key(day) for day in range(7)]
    done = list(ranges.run_range("materialize_features", "shop", keys, settings=ranged.settings))
    assert [report.state for report in done] == ["done"] * 7
    expected = reports(forward, range(7))
    assert len(expected) == 7
    assert reports(backward, range(7)) == expected
    assert reports(ranged, range(7)) == expected
    assert forward.run(3).reused
    assert forward.run(3, force=True).reason == "equal to the record"


def test_a_later_correction_changes_only_later_days(shop: Shop) -> None:
    arrive_week(shop, 5)
    for day in range(3):
        shop.run(day)
    before = reports(shop, range(3))
    shop.arrive(3, [(11, 1, 999.0, T0 + DAY + HOUR, T0 + 3 * DAY)])
    for day in range(4):
        shop.run(day)
    assert reports(shop, range(3)) == before
    assert {row["customer_id"]: row["amount_5d"] for row in shop.rows("spending", 3)}[1] > 999


def test_missing_and_blocked_partitions_of_the_lookback_are_named(shop: Shop) -> None:
    arrive_week(shop, 3)
    shop.arrive(3, state="blocked")
    with pytest.raises(
        MissingPartition,
        match=r"validate_data is not done for 1 partition.*2025-01-04 \(blocked.*evergreen "
        r"load-history",
    ) as caught:
        shop.run(3)
    assert caught.value.keys == ("2025-01-04",)
    shop.arrive(5)
    with pytest.raises(MissingPartition, match=r"2025-01-04.*2025-01-05"):
        shop.run(5)


def test_a_gap_is_allowed_where_all_sources_allow_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path, YAML.replace("    key: [", "    gaps: allow\n    key: ["))
    shop.arrive(0, [(1, 1, 1.0, T0, T0)])
    shop.arrive(2, [(2, 1, 2.0, T0 + 2 * DAY, T0 + 2 * DAY)])
    assert shop.run(2).state == "done"
    with pytest.raises(MissingPartition, match="2025-01-04"):
        shop.run(3)


def test_what_was_made_without_a_partition_is_stale_once_that_is_there(tmp_path: Path) -> None:
    """Else the features would be without its rows for ever, and depend on the order of runs."""
    yaml = YAML.replace("    key: [", "    gaps: allow\n    key: [")
    shop, forward = Shop(tmp_path / "shop", yaml), Shop(tmp_path / "forward", yaml)
    orders = [[(day, 1, 1.0 + day, T0 + day * DAY, T0 + day * DAY)] for day in range(4)]

    def kinds() -> dict[str, str]:
        return {row.key: row.kind for row in status.status_rows(shop.records, shop.use_case)}

    for day in (0, 3):
        shop.arrive(day, orders[day])
        shop.run(day)
    shop.arrive(2, state="blocked")
    shop.run(3)
    assert kinds()[shop.key(3)] != "stale"  # nothing has come of what is missing or blocked
    for day in (1, 2):
        shop.arrive(day, orders[day])
        assert kinds()[shop.key(3)] == "stale"
        assert not shop.run(3).reused
        assert kinds()[shop.key(3)] != "stale"
    for day in range(4):
        forward.arrive(day, orders[day])
        forward.run(day)
    assert reports(shop, range(3, 4)) == reports(forward, range(3, 4))


@pytest.mark.slow
def test_a_range_is_cut_by_its_rows_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for no row a part is as long as the views look back, here five days of fourteen."""
    whole, cut = Shop(tmp_path / "whole"), Shop(tmp_path / "cut", memory="64MB")
    for shop in (whole, cut):
        arrive_week(shop, 14)
        for day in range(14):
            shop.ask(day)
    parts: list[int] = []
    opened = materialize_features.ViewRows

    def count(contexts: Any, views: Any) -> Any:
        parts.append(len(contexts))
        return opened(contexts, views)

    monkeypatch.setattr(materialize_features, "ViewRows", count)
    keys = [whole.key(day) for day in range(14)]
    list(ranges.run_range("materialize_features", "shop", keys, settings=whole.settings))
    assert parts == [14]
    parts.clear()
    monkeypatch.setattr(materialize_features, "ROW_BYTES", 10**9)
    list(ranges.run_range("materialize_features", "shop", keys, settings=cut.settings))
    assert parts == [5, 5, 4]
    assert reports(cut, range(14)) == reports(whole, range(14))
