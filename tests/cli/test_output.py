"""What commands print: tables, JSON, the question before a change, and never a secret."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
import typer

from include.cli import output
from include.config.settings import settings
from include.errors import ConfigError
from tests.builders.command_line import Run


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    [
        "hunter2pw://evergreen:hunter2pw@db/x",
        "postgresql://evergreen:hunter2pw@[half/x",
        "hunter2pw",
    ],
)
def test_no_secret_is_printed_whatever_goes_wrong(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("EVERGREEN_RECORDS_URL", url)
    monkeypatch.setenv("EVERGREEN_NODE_TOKEN", "hunter2token")
    for options in ([], ["-v"]):
        done = run(*options, "audit", "verify")
        assert done.code != 0
        assert "hunter2pw@" not in done.out + done.err
        assert "hunter2token" not in done.out + done.err


def test_values_stand_in_a_table_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(
        ("name", "value"),
        [("[bold]x[/]", 0.123456789), ("\x1b[31mred", None), ("two\nlines", 12)],
        title="of numbers",
    )
    shown = capsys.readouterr().out
    assert "of numbers" in shown
    assert "[bold]x[/]  0.123457" in shown
    assert "\N{REPLACEMENT CHARACTER}[31mred" in shown
    assert "\x1b" not in shown
    assert "None" not in shown


def test_json_has_instants_in_utc_and_null_for_what_is_unknown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    at = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    output.print_json([{"at": at, "auc": float("nan"), "note": "", "details": {"a": at.date()}}])
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {
        "at": datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
        "auc": None,
        "note": None,
        "details": '{"a": "2026-01-01"}',
    }


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_a_change_is_made_only_after_a_yes(
    monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool
) -> None:
    import io

    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)
    if goes_on:
        output.confirm("Delete it?", yes=False)
    else:
        with pytest.raises(typer.Exit):
            output.confirm("Delete it?", yes=False)


def test_without_a_person_there_is_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO())
    output.confirm("Delete it?", yes=True)
    with pytest.raises(ConfigError, match="Nobody is here to answer; add --yes"):
        output.confirm("Delete it?", yes=False)


def test_secrets_are_hidden_but_not_every_short_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_NODE_TOKEN", "hunter2")
    monkeypatch.setenv("EVERGREEN_RECORDS_URL", "db")
    settings.cache_clear()
    try:
        assert output.without_secrets("token hunter2 of db") == "token *** of db"
    finally:
        settings.cache_clear()
