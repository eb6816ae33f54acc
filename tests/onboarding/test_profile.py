"""A table in a file: what its columns hold, and which partition would be the worst."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.config import use_case_file
from include.errors import ConfigError, SourceError
from include.onboarding import draft
from include.onboarding.profile import Table
from include.onboarding.yaml_text import name_others, name_some
from tests.builders.drafted import write_table


@pytest.mark.parametrize(
    ("amounts", "share"),
    [
        # 1 of 400 values, and of the 15 rows of its day.
        (lambda n: "seven" if n == 5 else f"{n}.5", 1 / 15),
        (lambda n: "1e999" if n in (5, 33) else f"{n}.5", 2 / 15),
        (lambda n: f"{n}.5", 0.0),
    ],
)
def test_a_draft_never_blocks_on_the_table_that_it_was_made_from(
    tmp_path: Path, amounts: Any, share: float
) -> None:
    lines = "".join(f"{n % 43},2025-01-{n % 28 + 1:02},{amounts(n)},{n % 2}\n" for n in range(400))
    path = write_table(tmp_path, lines)
    _, text = draft.draft(path)
    source = use_case_file.parse(text, folder=tmp_path).sources["rows"]
    worst = Table(path).worst(source, "day")
    assert worst.share == pytest.approx(share)
    assert source.max_bad >= worst.share
    assert ("max_bad" in text) == (share > 0.01)


def test_a_column_that_is_named_and_empty_is_told(tmp_path: Path) -> None:
    lines = "".join(f"{n % 40},2025-01-{n % 28 + 1:02},,{n % 2}\n" for n in range(60))
    for option, said in (("label", "--label"), ("key", "--entity"), ("time", "--time")):
        with pytest.raises(ConfigError, match=f"{said} 'amount' has no values"):
            draft.draft(write_table(tmp_path, lines), **{option: "amount"})


def test_a_file_without_a_header_keeps_its_first_row(tmp_path: Path) -> None:
    path = tmp_path / "t.data"
    path.write_text(
        "".join(f"{n % 43}; 2025-01-{n % 28 + 1:02}; {n * 7 % 90},5; {n % 2}\n" for n in range(400))
    )
    _, text = draft.draft(path, key="c1")
    source = use_case_file.parse(text, folder=tmp_path).sources["rows"]
    assert (source.header, source.separator, source.columns["c3"].decimal) == (False, ";", ",")
    assert 'from "t.data" (400 rows)' in text


def test_a_draft_counts_lines_that_are_no_rows_and_times_that_cannot_be_read(
    tmp_path: Path,
) -> None:
    lines = "".join(
        f"{n % 43},{'soon' if n == 7 else f'2025-01-{n % 28 + 1:02}'},{n}.5,{n % 2}\n"
        for n in range(400)
    )
    _, text = draft.draft(write_table(tmp_path, lines + "broken\n"))
    assert "1 line(s) could not be split" in text
    assert 'would go to quarantine: "soon"' in text
    assert use_case_file.parse(text, folder=tmp_path).sources["rows"].max_bad > 0.05


def test_columns_are_counted_as_the_contract_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,day,note\n" + "".join(f"{n},2025-01-0{n % 3 + 1}, \n" for n in range(9)))
    table = Table(path)
    ids, day, note = table.columns
    assert (ids.type, ids.unique, ids.distinct) == ("int64", True, 9)
    assert (day.type, day.unique, day.distinct) == ("date", False, 3)
    assert (note.nulls, note.distinct) == (9, 0)
    assert table.distinct("day", 2) == ["2025-01-01", "2025-01-02"]
    first, last = table.moments("day")
    assert (first.date().day, last.date().day) == (1, 3)
    with pytest.raises(SourceError, match="column 'note' holds no time; name another with --time"):
        table.moments("note")


def test_a_table_without_rows_or_with_too_many_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n")
    with pytest.raises(SourceError, match="no rows; a draft is guessed from values"):
        Table(path)
    path.write_text(",".join(f"c{n}" for n in range(501)) + "\n" + ",".join(["1"] * 501) + "\n")
    with pytest.raises(SourceError, match="501 columns; a draft takes at most 500"):
        Table(path)


def test_names_for_messages_are_few_and_harmless(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('"a""b",c,d,e,f\n1,2,3,4,5\n')
    columns = Table(path).columns
    assert name_others(columns) == '; others: "a\\"b", "c", "d", "e"'
    assert name_others([]) == ""
    assert name_some(columns[1:3]) == "'c', 'd'"
