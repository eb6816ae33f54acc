"""Pages: what templates are given is escaped, and a page is put in place as a whole."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from include.reports import page
from include.reports.page import Phrase

SHOWN: dict[str, Any] = {
    "title": "A & B",
    "key": "2026-01-01",
    "verdict": "pass",
    "colour": "pass",
    "about": "about",
    "caveat": "",
    "reasons": ["run `evergreen up` <now>"],
}


def test_text_is_escaped_and_code_is_code() -> None:
    text = page.render("base.html", SHOWN)
    assert "<title>A &amp; B 2026-01-01: pass</title>" in text
    assert "<li>run <code>evergreen up</code> &lt;now&gt;</li>" in text


def test_a_page_lets_nothing_run_but_files_and_fetches_nothing() -> None:
    text = page.render("base.html", SHOWN, scripts=["../../_assets/charts.js"])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert "default-src 'none'" in policy
    assert "script-src 'self' file:;" in policy
    assert "://" not in text
    assert '<script defer src="../../_assets/charts.js">' in text


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="verdict"):
        page.render("base.html", {name: SHOWN[name] for name in SHOWN if name != "verdict"})


def test_a_page_refers_to_the_scripts_beside_all_reports(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "shop" / "2026-01-01" / "drift.html"
    page.write_page(path, "base.html", SHOWN, reports=tmp_path / "reports")
    text = path.read_text(encoding="utf-8")
    addresses = re.findall(r'src="([^"]*)"', text)
    assert [address.rpartition("/")[0] for address in addresses] == ["../../_assets"] * 2
    assert all((path.parent / address).is_file() for address in addresses)
    assert [file.name for file in path.parent.iterdir()] == ["drift.html"]


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file")
    with pytest.raises(OSError, match="reports"):
        page.write_page(
            tmp_path / "reports" / "shop" / "2026-01-01" / "drift.html",
            "base.html",
            SHOWN,
            reports=tmp_path / "reports",
        )


@pytest.mark.parametrize(
    ("sentence", "phrases"),
    [
        ("plain", [Phrase("plain", False)]),
        ("`a` b", [Phrase("a", True), Phrase(" b", False)]),
        ("a `b`", [Phrase("a ", False), Phrase("b", True)]),
        ("one ` alone", [Phrase("one ` alone", False)]),
        ("", []),
    ],
)
def test_code_stands_between_backticks(sentence: str, phrases: list[Phrase]) -> None:
    assert page.split_code(sentence) == phrases


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, page.NONE),
        (math.nan, page.NONE),
        (math.inf, page.NONE),
        (1234, "1,234"),
        (0.5, "0.5000"),
    ],
)
def test_numbers_are_shown_alike(value: Any, shown: str) -> None:
    assert page.number(value) == shown
    assert page.percent(None) == page.NONE
    assert page.percent(0.125) == "12.5%"
