"""A second draft over a first: nothing that a person wrote is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from include.config import use_case_file
from include.errors import ConfigError
from include.onboarding.answers import NOTHING, Answers
from include.onboarding.draft import draft_table
from include.onboarding.profile import Table
from include.onboarding.redraft import answers_in, redraft
from tests.builders.drafted import write_table


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(write_table(tmp_path))


def drafted_again(table: Table, old: str, answers: Answers) -> str:
    new = draft_table(table, answers).text
    path = table.path.with_suffix(".yaml")
    return redraft(path, old, new, lambda given: draft_table(table, given).text)


def test_a_draft_that_nobody_touched_is_written_anew(table: Table) -> None:
    old = draft_table(table).text
    answers = Answers(known="event + 2d")
    new = drafted_again(table, old, answers)
    assert new == draft_table(table, answers).text != old
    assert answers_in(new) == answers


def test_what_a_person_changed_stays_and_what_was_answered_comes_in(table: Table) -> None:
    old = draft_table(table).text
    edited = old.replace("  delay: 0s  # assumed, as above", "  delay: 9d").replace(
        "name: t\n", "name: t\n# mine: ask the branch\n"
    )
    new = drafted_again(table, edited, Answers(known="event + 2d"))
    use_case = use_case_file.parse(new, folder=table.path.parent)
    assert use_case.label.delay.days == 9  # both changed it: the person's stands
    assert use_case.sources["rows"].arrival == "event + 2d"
    assert "# mine: ask the branch" in new
    # And once more, over what was merged.
    third = drafted_again(table, new, Answers(known="event + 2d", outcome="event + 5d"))
    assert use_case_file.parse(third, folder=table.path.parent).label.delay.days == 9
    assert "label_time: event + 5d" in third
    assert "# mine: ask the branch" in third


def test_where_nobody_can_tell_what_was_changed_the_file_stays(table: Table) -> None:
    edited = draft_table(table).text.replace("delay: 0s", "delay: 1d")
    table.path.write_text(table.path.read_text() + "9,2025-02-01,5.5,1\n")
    with pytest.raises(ConfigError, match="nobody can tell what is yours; it stays as it is"):
        drafted_again(Table(table.path), edited, NOTHING)


def test_changes_that_do_not_fit_are_refused(table: Table) -> None:
    edited = draft_table(table).text.replace("    key: [", "    keys: [")
    with pytest.raises(ConfigError, match=r"stays as it is: what was changed .*key: is missing"):
        drafted_again(table, edited, Answers(known="event + 2d"))


@pytest.mark.parametrize("text", ["name: t\n", "", "# Made by hand\n"])
def test_a_file_that_is_no_draft_is_refused(table: Table, text: str) -> None:
    assert answers_in(text) is None
    with pytest.raises(ConfigError, match="is no draft of `evergreen new`"):
        drafted_again(table, text, NOTHING)


def test_answers_come_back_from_their_line_and_newer_ones_win() -> None:
    old = Answers(time="at", label="y", written_later=("a", 'b"\n'))
    assert Answers.from_json(old.as_json()) == old
    assert "\n" not in old.as_json()
    newer = Answers.from_json('{"snapshot": "2024-05-01"}').with_others(old)
    assert newer == replace(old, time=None, snapshot=newer.snapshot)
    for text in ("[]", '{"other": 1}', "{", '{"snapshot": "soon"}'):
        with pytest.raises(ValueError):  # noqa: PT011 - of JSON, of dates, or ours
            Answers.from_json(text)
