"""What commands share: settings that are wrong, use cases and partition keys that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.cli import context
from include.cli.suggestions import Mistake
from include.config.settings import Settings
from include.config.use_case_file import parse
from include.errors import ConfigError
from tests.builders.command_line import YAML, Run


def test_a_wrong_setting_names_its_variable_and_hides_its_value(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERGREEN_NODE_PORT", "hunter2")
    done = run("audit", "verify")
    assert done.code == 2
    assert "EVERGREEN_NODE_PORT: Input should be a valid integer" in done.err
    assert "hunter2" not in done.out + done.err


def test_keys_are_one_partition_or_a_range() -> None:
    case = parse(YAML)
    assert context.wanted_keys(case, "2025-03-02", None, None) == ["2025-03-02"]
    assert context.wanted_keys(case, None, "2025-03-02", "2025-03-04") == [
        "2025-03-02",
        "2025-03-03",
        "2025-03-04",
    ]
    for given in [
        (None, None, None),
        ("2025-03-02", "2025-03-02", None),
        (None, "2025-03-02", None),
    ]:
        with pytest.raises(ConfigError, match="give either --partition KEY"):
            context.wanted_keys(case, *given)
    with pytest.raises(ConfigError, match="is after --to 2025-03-01; swap them"):
        context.keys_between(case, "2025-03-02", "2025-03-01")


def test_a_key_outside_the_history_comes_with_the_nearest_one() -> None:
    with pytest.raises(Mistake) as caught:
        context.checked_key(parse(YAML), "2025-04-01")
    assert caught.value.meant == "2025-03-08"


def test_the_newest_partition_is_none_of_the_future() -> None:
    assert context.newest_for(parse(YAML), ["2025-03-08"]) == "2025-03-08"
    later = parse(YAML.replace("{first: 2025-03-01, last: 2025-03-08}", "{first: 2999-01-01}"))
    with pytest.raises(Mistake, match="partition 2999-01-01 of visits is not complete yet"):
        context.newest_for(later, [])


def test_a_use_case_is_found_by_name_or_a_near_one_is_suggested(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, usecases=str(tmp_path))
    (tmp_path / "visits.yaml").write_text(YAML)
    assert context.find_use_case(settings, "visits").name == "visits"
    with pytest.raises(Mistake) as caught:
        context.find_use_case(settings, "visit")
    assert caught.value.meant == "visits"


def test_records_are_made_on_first_use(tmp_path: Path) -> None:
    records = context.open_records(Settings(home=tmp_path / "new"))
    assert records.audit.head()[0] == 0
