"""The command new: what it shows and writes, what it asks in a terminal, what it keeps."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from include.config import use_case_file
from include.config.settings import ROOT
from tests.builders.command_line import Run

N = 300


def shoppers(folder: Path) -> Path:
    """Write visits whose final_amount was written when the outcome was known."""
    table = folder / "shoppers.csv"
    lines = [
        f"{n},{n % 9},2025-01-{1 + n // 15:02}T{n % 15:02}:00:00,{n * 7 % 50},{n % 2 * 5 + n % 3},"
        f"2025-02-{1 + n // 15:02},{n % 2}"
        for n in range(N)
    ]
    header = "visit_id,customer_id,visited,amount,final_amount,closed_at,label"
    table.write_text("\n".join([header, *lines]) + "\n")
    return table


def test_new_shows_each_column_and_says_what_it_wrote(run: Run, tmp_path: Path) -> None:
    done = run("new", "--from", shoppers(tmp_path))
    assert done.code == 0, done.err
    (head,) = (line for line in done.out.splitlines() if line.startswith("column "))
    assert head.split() == [
        *["column", "role", "type", "fits", "samples", "may", "also", "be", "marks"]
    ]
    assert re.search(r"customer_id +entity +int64 +100% +0, 1, 2", done.out)
    assert re.search(r"visited +decision's time +timestamp", done.out)
    assert re.search(r"final_amount +left out .* taken for written after the decision", done.out)
    assert f"{N} decisions; 50.0% of those with an outcome have label = 1." in done.out
    text = (tmp_path / "shoppers.yaml").read_text()
    assert '# ASK: When is the outcome known? Guessed: "closed_at"' in text
    assert "# ASK: Which columns are written after the decision? Guessed: " in text


def test_json_holds_columns_questions_and_the_file(run: Run, tmp_path: Path) -> None:
    done = run("new", "--from", shoppers(tmp_path), "--json")
    told = json.loads(done.out)
    assert told["file"] == str(tmp_path / "shoppers.yaml")
    assert (told["decisions"], told["label_rate"]) == (N, 0.5)
    columns = {column["column"]: column for column in told["columns"]}
    assert columns["amount"] == {
        "column": "amount",
        "role": "feature",
        "type": "int64",
        "fits": 1.0,
        "filled": 1.0,
        "different": 50,
        "samples": ["0", "1", "10"],
        "may_also_be": [],
        "marks": [],
    }
    assert "sounds written after the outcome" in columns["final_amount"]["marks"]
    asked = {question["field"]: question["guess"] for question in told["questions"]}
    assert asked["outcome"] == "closed_at"


def test_lines_that_could_not_be_read_are_counted_where_the_rows_are(
    run: Run, tmp_path: Path
) -> None:
    table = shoppers(tmp_path)
    lines = table.read_text().splitlines()
    lines[5:9] = [line.rsplit(",", 1)[0] for line in lines[5:9]]
    table.write_text("\n".join(lines) + "\n")
    shown = run("new", "--from", table).out
    assert f"{N - 4} rows, and 4 lines that could not be read as one" in " ".join(shown.split())
    told = json.loads(run("new", "--from", table, "--json").out)
    assert (told["rows"], told["broken_lines"]) == (N - 4, 4)


def test_yes_takes_the_guesses_and_options_answer(run: Run, tmp_path: Path) -> None:
    table = shoppers(tmp_path)
    options = ["--known", "event + 2d", "--written-later", "amount", "--yes"]
    assert run("new", "--from", table, *options).code == 0
    text = (tmp_path / "shoppers.yaml").read_text()
    case = use_case_file.parse(text, folder=tmp_path)
    assert "# ASK" not in text
    assert case.sources["rows"].arrival == "event + 2d"
    assert list(case.features["row_features"].columns) == ["final_amount"]
    wrong = run("new", "--from", table, "--written-later", "amounts", "--yes")
    assert (wrong.code, "no such column; columns are" in wrong.err) == (2, True)
    both = run("new", "--from", table, "--time", "visited", "--snapshot", "2025-01-01")
    assert (both.code, "exclude each other" in both.err) == (2, True)


def test_a_second_new_keeps_what_was_answered_and_changed(run: Run, tmp_path: Path) -> None:
    table, path = shoppers(tmp_path), tmp_path / "shoppers.yaml"
    assert run("new", "--from", table, "--known", "event + 2d").code == 0
    path.write_text(path.read_text().replace("  min_rows: ", "  min_rows: 77  # mine, not "))
    assert run("new", "--from", table, "--written-later", "none").code == 0
    case = use_case_file.load(path)
    assert (case.gates.min_rows, case.sources["rows"].arrival) == (77, "event + 2d")
    assert set(case.features["row_features"].columns) == {"amount", "final_amount"}
    before = path.read_text() + "extra: line\n"
    path.write_text(before)
    refused = run("new", "--from", table)
    assert (refused.code, "stays as it is" in refused.err) == (2, True)
    assert path.read_text() == before
    assert list(tmp_path.glob(".shoppers*")) == []


@pytest.mark.slow
def test_a_terminal_is_asked_one_question_after_the_other(tmp_path: Path) -> None:
    answers = iter(["", "event + soon", "event + 1d", "", "n", "nothing", "none"])
    shown = in_a_terminal(["new", "--from", str(shoppers(tmp_path))], tmp_path, answers)
    questions = [
        "What is the moment of the decision? (or: closed_at) [visited]:",
        "When is a row known? (or: closed_at, event + 1d) [event + 0s]:",
        "When is the outcome known? (or: event + 30d) [closed_at]:",
        "Which columns are written after the decision?",
        "Is final_amount written after the decision? [Y/n]:",
        "Which others? [none]:",
    ]
    places = [shown.index(question) for question in questions]
    assert places == sorted(places)
    assert "'soon'" in shown  # the wrong answer was refused, and asked again
    assert "['nothing']: no such column" in shown
    assert "final_amount: sounds written after the outcome, tells the outcome alone" in shown
    text = (tmp_path / "shoppers.yaml").read_text()
    case = use_case_file.parse(text, folder=tmp_path)
    assert "# ASK" not in text
    assert case.sources["rows"].arrival == "event + 1d"
    assert case.label.label_time == "closed_at"
    assert set(case.features["row_features"].columns) == {"amount", "final_amount"}
    # All is answered: nobody is asked again.
    shown = in_a_terminal(["new", "--from", str(shoppers(tmp_path))], tmp_path, iter([]))
    assert "Wrote" in shown
    assert (tmp_path / "shoppers.yaml").read_text() == text


@pytest.mark.slow
def test_a_terminal_asks_for_the_outcome_its_values_and_the_day(tmp_path: Path) -> None:
    table = tmp_path / "survey.csv"
    lines = [f"{n},{n * 7 % 50},{'ABC'[n % 3]},{'xy'[n % 2]}" for n in range(N)]
    table.write_text("\n".join(["id,amount,kind,side", *lines]) + "\n")
    answers = iter(["May", "2024-05-01", "kind", "A, D", "A, B", "none"])
    arguments = ["new", "--from", str(table)]
    shown = in_a_terminal(arguments, tmp_path, answers, endings=("]:", "):", "?"))
    questions = [
        "For which day does the table stand (YYYY-MM-DD)?",
        "'May' is no day; write it as 2024-05-31",
        "Which column is the outcome? (or: kind",
        "Which values of 'kind' count as 1 (with commas between)? (one of: A, B, C):",
        "--positive D: --label 'kind' has no such value",
        "Which columns are written after the decision? [none]:",
    ]
    places = [shown.index(question) for question in questions]
    assert places == sorted(places)
    case = use_case_file.parse((tmp_path / "survey.yaml").read_text(), folder=tmp_path)
    assert (case.label.column, case.label.positives) == ("kind", ["A", "B"])
    assert case.is_timeless


def test_a_second_new_asks_only_for_columns_that_came_since(tmp_path: Path) -> None:
    in_a_terminal(
        ["new", "--from", str(shoppers(tmp_path))], tmp_path, iter(["", "", "", "y", "none"])
    )
    table = tmp_path / "shoppers.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    wide = [
        ",".join([*row[:-1], row[-1] if n else "refund", row[-1]]) for n, row in enumerate(rows)
    ]
    table.write_text("\n".join(wide) + "\n")
    shown = in_a_terminal(["new", "--from", str(table)], tmp_path, iter(["n", "none"]))
    assert "Is refund written after the decision?" in shown
    assert "Is final_amount" not in shown
    case = use_case_file.parse((tmp_path / "shoppers.yaml").read_text(), folder=tmp_path)
    assert set(case.features["row_features"].columns) == {"amount", "refund"}


def in_a_terminal(
    arguments: list[str], folder: Path, answers: object, endings: tuple[str, ...] = ("]:",)
) -> str:
    """Run `evergreen` in a terminal; give the next answer whenever it waits for one."""
    parent, child = pty.openpty()
    command = [sys.executable, "-c", "from include.cli.app import main; main()", *arguments]
    environment = {
        **os.environ,
        "EVERGREEN_HOME": str(folder / "var"),
        "EVERGREEN_USECASES": str(folder),
        "COLUMNS": "160",
        "TERM": "dumb",
    }
    process = subprocess.Popen(
        command, stdin=child, stdout=child, stderr=child, cwd=ROOT, env=environment
    )
    os.close(child)
    shown, asked, end = "", 0, time.monotonic() + 300
    try:
        while time.monotonic() < end:
            if not select.select([parent], [], [], 0.2)[0]:
                continue
            try:
                part = os.read(parent, 65_536)
            except OSError:  # what Linux says when the other side is closed
                break
            if not part:
                break
            shown += part.decode(errors="replace").replace("\r\n", "\n")
            if shown.endswith(tuple(f"{end} " for end in endings)) and len(shown) > asked:
                asked = len(shown)
                os.write(parent, f"{next(answers)}\n".encode())  # type: ignore[call-overload]
        assert process.wait(timeout=60) == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(parent)
    return shown


@pytest.mark.parametrize("text", ["name: shoppers\n", ""])
def test_a_file_of_somebody_else_is_not_overwritten(run: Run, tmp_path: Path, text: str) -> None:
    path = tmp_path / "shoppers.yaml"
    path.write_text(text)
    done = run("new", "--from", shoppers(tmp_path))
    assert (done.code, "exists already" in done.err) == (2, True)
    assert path.read_text() == text
