"""The generated pages: tables that stay tables, and fields by their place in the file."""

from __future__ import annotations

import re

from docs import generate


def rows(page: str) -> list[list[str]]:
    """Return the cells of every row of the tables on a page."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


def test_every_row_has_the_cells_of_its_table() -> None:
    assert {len(row) for row in rows(generate.use_case())} == {4}
    assert {len(row) for row in rows(generate.settings())} == {3}


def test_fields_stand_under_their_place_in_the_file() -> None:
    page = generate.use_case()
    for place in (
        *("sources.NAME", "sources.NAME.columns.NAME", "training.split", "features.NAME"),
        *("release.steps.N", "release.verdict.slow"),
    ):
        assert f"\n## {place}\n" in page
    assert "## UseCase" not in page
    assert "| `folder` |" not in page


def test_kinds_and_defaults_are_what_a_file_has() -> None:
    cells = {row[0].strip(): [cell.strip() for cell in row] for row in rows(generate.use_case())}
    assert cells["`cut_off`"][1:3] == ["duration", "`0s`"]
    assert cells["`cadence`"][1:3] == ["`day`, `week`, `month`", "`day`"]
    assert cells["`max_bad`"][1:3] == ["number, 0 to 1", "`0.01`"]
    assert cells["`psi`"][1:3] == ["number above 0", "`0.2`"]
    assert cells["`share`"][1:3] == ["number, 0 to below 100", "required"]
    assert cells["`lacks_feature`"][1:3] == ["mapping or `false`", ""]
    assert cells["`url_env`"][2] == "required"
    assert cells["`values`"][1:3] == ["list of values", ""]
    assert cells["`header`"][1] in ("text", "true or false")


def test_no_secret_has_a_default_on_the_page() -> None:
    cells = {row[0].strip(): row[1].strip() for row in rows(generate.settings())}
    assert cells["`EVERGREEN_NODE_TOKEN`"] == ""
    assert cells["`EVERGREEN_NODE_PORT`"] == "`8600`"
