"""A wrong argument is answered with the command as it was probably meant."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.cli.suggestions import Mistake, corrected, meant_by, nearest, nearest_key, stage_words
from include.clock import utc_now
from include.config.use_case_file import parse
from include.pipeline.flow import STAGES
from include.point_in_time.partitions import newest_complete
from tests.builders.command_line import (
    YAML,
    Run,
)

NOW = datetime(2025, 3, 6, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("statu visits --all", "evergreen status visits --all"),
        (
            "redrive visits --reason 'a typo'",
            "evergreen quarantine redrive visits --reason 'a typo'",
        ),
        ("audit lst", "evergreen audit list"),
        ("usecase shema", "evergreen usecase schema"),
        (f"{STAGES[0]} -u visits", f"evergreen run {STAGES[0]} -u visits"),
        (
            "run training -u visits -p 2025-03-01",
            f"evergreen run {STAGES[3]} -u visits -p 2025-03-01",
        ),
        (
            f"run {STAGES[1][:-2]} -u visits -p 2025-03-01",
            f"evergreen run {STAGES[1]} -u visits -p 2025-03-01",
        ),
        ("status visit", "evergreen status visits"),
        ("models visits.yaml", "evergreen models visits"),
        ("reset vsits", "evergreen reset visits"),
        ("up -u visit", "evergreen up -u visits"),
        (
            f"run {STAGES[0]} --use-case=visit -p 2025-03-01",
            f"evergreen run {STAGES[0]} --use-case=visits -p 2025-03-01",
        ),
        (
            f"run {STAGES[0]} -u visits -p 2025-3-7",
            f"evergreen run {STAGES[0]} -u visits -p 2025-03-07",
        ),
        (
            f"run {STAGES[0]} -u visits -p 2025-02-30",
            f"evergreen run {STAGES[0]} -u visits -p 2025-03-01",
        ),
        (
            f"run {STAGES[0]} -u visits -p 2025-03-01 --restate why --source row",
            f"evergreen run {STAGES[0]} -u visits -p 2025-03-01 --restate why --source rows",
        ),
        ("score visits -p 2026-01-01", "evergreen score visits -p 2025-03-08"),
        ("load-history visits --from 20250304", "evergreen load-history visits --from 2025-03-04"),
        (
            "backfill visits --from 2025-03-01 --to 2025-03-31",
            "evergreen backfill visits --from 2025-03-01 --to 2025-03-08",
        ),
        ("quarantine list visits -p 2025-03", "evergreen quarantine list visits -p 2025-03-01"),
        (
            "quarantine redrive visits --reason x -p 2020-01-01",
            "evergreen quarantine redrive visits --reason x -p 2025-03-01",
        ),
        ("usecase check vsits", "evergreen usecase check visits"),
        ("usecase check visit.yaml", "evergreen usecase check visits"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_right_command(
    run: Run, tmp_path: Path, words: str, meant: str
) -> None:
    import shlex

    (tmp_path / "visits.yaml").write_text(YAML)
    done = run(*shlex.split(words))
    assert (done.code, done.out) == (2, ""), done
    assert f"Did you mean `{meant}`?" in done.err


@pytest.mark.parametrize(
    "words",
    [
        f"run {STAGES[0]} -u visits -p {{}}",
        "load-history visits --to {}",
        "backfill visits --from {} --to {}",
    ],
)
def test_a_partition_that_is_not_complete_is_answered_with_the_newest(
    run: Run, tmp_path: Path, words: str
) -> None:
    (tmp_path / "visits.yaml").write_text(YAML.replace(", last: 2025-03-08", ""))
    newest = newest_complete(parse(YAML.replace(", last: 2025-03-08", "")), utc_now())
    done = run(*words.format("2999-01-01", "2999-01-01").split())
    assert done.code == 2, done
    assert f"Did you mean `evergreen {words.format(newest, newest)}`?" in done.err


@pytest.mark.parametrize(
    "words",
    ["xyzzy", "status nobody", "run xyzzy -u visits -p 2025-03-01", "usecase check nowhere.yaml"],
)
def test_nothing_is_suggested_where_nothing_comes_near(
    run: Run, tmp_path: Path, words: str
) -> None:
    (tmp_path / "visits.yaml").write_text(YAML)
    done = run(*words.split())
    assert (done.code, "Did you mean" in done.err) == (2, False), done


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("2025-03-02", "2025-03-02"),
        ("2025-3-2", "2025-03-02"),
        ("20250302", "2025-03-02"),
        ("2025/03/02", "2025-03-02"),
        ("2025-03-02T10:00", "2025-03-02"),
        ("2025-02-31", "2025-03-01"),
        ("2024-13-01", "2025-03-01"),
        ("2025", "2025-03-05"),
        ("0000-01-01", "2025-03-01"),
        ("9999-12-31", "2025-03-05"),
        ("2025-03-99", "2025-03-05"),
        ("2024-02-30", "2025-03-01"),
        ("2025-03-08", "2025-03-05"),
        ("yesterday", "2025-03-05"),
        ("", "2025-03-05"),
    ],
)
def test_the_nearest_key_is_a_complete_partition(key: str, found: str) -> None:
    assert nearest_key(parse(YAML), key, NOW) == found


def test_the_nearest_key_begins_its_period() -> None:
    text = YAML.replace("name: visits", "name: visits\ncadence: week")
    weeks = parse(text.replace("{first: 2025-03-01, last: 2025-03-08}", "{first: 2025-03-03}"))
    later = datetime(2025, 3, 31, tzinfo=UTC)
    keys = [
        nearest_key(weeks, key, later)
        for key in ("2025-02-01", "2025-03-05", "2025-03-12", "2026-01-01")
    ]
    assert keys == ["2025-03-03", "2025-03-03", "2025-03-10", "2025-03-24"]
    assert nearest_key(weeks, "2025-03-05", NOW) is None


def test_words_and_commands_are_mended() -> None:
    assert nearest("Train_modl", ["train_model", "check_drift"]) == "train_model"
    assert nearest("xyz", ["train_model"]) is None
    assert {meant_by(word, stage_words()) for word in STAGES} == set(STAGES)
    assert meant_by("bento", stage_words()) == "package_model"
    assert corrected(["run", "a", "-u", "b c"], "a", "all") == "evergreen run all -u 'b c'"
    assert corrected(["run", "-pa"], "a", "all") == "all"
    assert Mistake("wrong", wrong="a", meant=None).with_suggestion(["a"]) == "wrong"
