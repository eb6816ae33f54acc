"""The short form of the drill: a few of its cases, on a running system, as `make drill SHORT=1`."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import ConfigError
from tests.drill.__main__ import HEADS, play, table
from tests.drill.story import CASES, chosen


def test_a_few_cases_end_as_the_rules_state(tmp_path: Path) -> None:
    cases = chosen([], short=True)
    played = list(play(cases, tmp_path))
    assert [one.problem for one in played] == [""] * len(cases)
    assert [one.end for one in played] == [case.stated for case in cases]
    assert sum(one.tally.requests for one in played) > 500
    assert len(table([one.line for one in played]).splitlines()) == len(cases) + 2


def test_cases_are_chosen_by_name_and_the_first_release_goes_before() -> None:
    assert [case.name for case in chosen(["nan", " slow"], short=False)] == [
        "first release",
        "slow",
        "nan",
    ]
    assert chosen([], short=False) == list(CASES)
    assert len(HEADS) == len({*HEADS})
    with pytest.raises(ConfigError, match="no case healthy models; there are first release, thin"):
        chosen(["healthy models"], short=False)
