"""`evergreen import-predictions`: what the DAG does, from a shell, told in words."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from include.clock import utc_now
from include.predictions.log import folder
from include.predictions.shipping import ship
from tests.builders.command_line import Run
from tests.builders.logged import write_segment


def test_it_says_what_was_imported_set_aside_and_removed(
    run: Run, visits: Path, tmp_path: Path
) -> None:
    home = tmp_path / "var"
    write_segment(home, 1, 2, use_case="visits", at=utc_now())
    write_segment(home, 3, use_case="visits", at=utc_now() - timedelta(days=500))
    with next(folder(home, "visits").iterdir()).open("ab") as file:
        file.write(b"no line\n")
    done = run("import-predictions", "visits")
    assert done.code == 0, done.err
    assert "3 predictions of 2 segments imported" in done.out
    assert f"1 lines could not be read and are set aside in {folder(home, 'visits')}; " in done.out
    assert "1 predictions older than log.retention removed" in done.out
    assert "0 predictions of 0 segments" in run("import-predictions", "visits").out
    wrong = run("import-predictions", "visit")
    assert (wrong.code, "visits" in wrong.err) == (2, True)


def test_it_says_where_what_a_node_has_shipped_is_set_aside(
    run: Run, visits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, shared = tmp_path / "var", tmp_path / "shared"
    monkeypatch.setenv("EVERGREEN_SEGMENTS_URI", str(shared))
    for at in (tmp_path / "node", home):
        write_segment(at, 1, use_case="visits", at=utc_now())
        with next(folder(at, "visits").iterdir()).open("ab") as file:
            file.write(b"no line\n")
        if at != home:
            ship(at, str(shared))
    out = " ".join(run("import-predictions", "visits").out.split())
    places = f"{folder(home, 'visits')} and {shared}/visits"
    assert f"2 lines could not be read and are set aside in {places}; " in out
    for place in (folder(home, "visits"), shared / "visits"):
        assert [path.suffix for path in place.iterdir()] == [".bad"]
