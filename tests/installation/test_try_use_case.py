"""Which partition is tried, where its file is looked for, and what a refusal adds.

`tests/cli/test_try_use_case.py` runs the whole way.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.config.settings import Settings
from include.config.use_case_file import find, parse
from include.errors import ConfigError, RestatementRefused
from include.installation import try_use_case as trying
from include.records.records import Records
from tests.builders.command_line import YAML
from tests.builders.shop import DAY, T0, Shop
from tests.builders.shop import YAML as SHOP

NOW = datetime(2025, 3, 6, 12, tzinfo=UTC)


def test_the_newest_complete_partition_is_tried_or_the_last_of_a_closed_history() -> None:
    closed = parse(YAML)
    assert trying.choose_key(closed, None, NOW) == "2025-03-05"
    assert trying.choose_key(closed, None, datetime(2026, 1, 1, tzinfo=UTC)) == "2025-03-08"
    assert trying.choose_key(closed, "2025-03-02", NOW) == "2025-03-02"
    with pytest.raises(ConfigError, match="not complete yet; the newest is 2025-03-05"):
        trying.choose_key(closed, "2025-03-06", NOW)
    with pytest.raises(ConfigError, match="no complete partition yet"):
        trying.choose_key(closed, None, datetime(2025, 3, 1, 12, tzinfo=UTC))


def test_a_window_without_an_outcome_goes_back_to_the_newest_partition_that_can_train(
    tmp_path: Path,
) -> None:
    """The newest decision, of day 2, is known after five more: the delay."""
    shop = Shop(tmp_path, SHOP + "training: {window: 6d}\n")
    made = T0 + 2 * DAY
    shop.label(7, (1, made, made + 5 * DAY, made + 5 * DAY, 1.0))
    for newest, tried in ((6, 6), (7, 7), (20, 7)):
        assert trying.newest_trainable(shop.use_case, shop.settings, shop.key(newest)) == shop.key(
            tried
        )
    shop.define(SHOP)  # without a window the newest knows every outcome
    assert trying.newest_trainable(shop.use_case, shop.settings, shop.key(20)) == shop.key(20)


def test_a_file_is_found_wherever_it_lies_and_through_a_link(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (there / "draft.txt").write_text(YAML)
    (there / "visits.yaml").symlink_to(there / "draft.txt")
    settings = Settings(home=tmp_path / "var", usecases=str(here))
    found = trying.with_folder_of(settings, there / "visits.yaml")
    assert find("visits", found.usecase_dirs).folder == there
    assert trying.with_folder_of(settings, here / "visits.yaml") is settings


@pytest.mark.parametrize(
    ("place", "says"), [("a:b/visits.yaml", "has no ':'"), ("c/visits.yml", "rename it to visits")]
)
def test_a_file_that_could_not_be_found_by_its_name_is_refused(
    tmp_path: Path, place: str, says: str
) -> None:
    settings = Settings(home=tmp_path / "var", usecases=str(tmp_path))
    with pytest.raises(ConfigError, match=says):
        trying.with_folder_of(settings, tmp_path / place)


def test_a_range_that_an_earlier_trial_recorded_otherwise_says_how_to_forget_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingestion refuses such a range as a whole, after its last partition."""
    shop = Shop(tmp_path)

    def refuse(stage: str, *_: object, **__: object) -> None:
        raise RestatementRefused(f"{stage}: 40 partitions are recorded with other rows")

    monkeypatch.setattr(trying, "run_range", refuse)
    with pytest.raises(RestatementRefused, match=r"other rows\n.*: evergreen reset shop"):
        trying._load(
            trying.Tried("shop", shop.key(1)),
            shop.use_case,
            shop.settings,
            Records.open(shop.settings.records_address),
            now=T0 + 9 * DAY,
            actor="test",
            progress=lambda *_: None,
        )
