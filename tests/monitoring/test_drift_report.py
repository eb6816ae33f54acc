"""The drift report: what it shows, in which order, and that nothing of it can be code."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from include.artefacts.store import ArtefactStore
from include.config.use_case_file import find
from include.monitoring import drift_report
from include.monitoring.psi import Stability
from include.pipeline.drift_outputs import ComparedWith, DriftOutputs
from tests.builders.monitoring import KEYS, YAML


def written(
    path: Path, side: dict[str, pa.Array], types: dict[str, str], outputs: DriftOutputs
) -> str:
    """Write a report in which both sides are the same rows; return its page."""
    use_case = find("shop", [path.parent])
    rows = {"spend": pa.table(side)}
    store = ArtefactStore(str(path.parent), path.parent, cache_bytes=1)
    uri = drift_report.write_report(
        store,
        use_case,
        KEYS[0],
        "live",
        outputs,
        reference=rows,
        current=rows,
        types=types,
    )
    return store.read(uri).decode()


def page_beside(folder: Path) -> Path:
    """Evidently's page of the view."""
    return folder / "reports" / "shop" / KEYS[0] / "drift-spend.html"


def outputs_of(
    features: dict[str, Stability], verdict: Any = "pass", reasons: Sequence[str] = ()
) -> DriftOutputs:
    """Outputs of a comparison with an opponent."""
    return DriftOutputs(
        verdict=verdict,
        reasons=list(reasons),
        reference=ComparedWith(kind="opponent", partition=KEYS[0], version=3),
        limit=0.2,
        features={name: stability.recorded() for name, stability in features.items()},
    )


def figures(page: str) -> list[dict[str, Any]]:
    """The figures of a page, as its script reads them."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(text) for text in found]


@pytest.mark.slow
def test_the_report_escapes_what_data_says_and_survives_what_it_holds(tmp_path: Path) -> None:
    """Fault 58, and what breaks Evidently: infinities, columns without a value, numbers whose
    sums overflow.
    """
    attack = "</script><script>alert(1)</script>"
    (tmp_path / "shop.yaml").write_text(YAML + f"title: '{attack}'\n")
    rows = 300
    side = {
        "amount": pa.array([float("inf"), -float("inf"), float("nan"), 1.0, 2.0] * (rows // 5)),
        "nothing": pa.array([None] * rows, pa.float64()),
        "constant": pa.array([7.0] * rows),
        "huge": pa.array([1e308, -1e308, 0.0] * (rows // 3)),
        "kind": pa.array([attack, "=cmd|x", None] * (rows // 3)),
        "flag": pa.array([True, None, False] * (rows // 3)),
    }
    types = dict.fromkeys(side, "string") | dict.fromkeys(
        ("amount", "nothing", "constant", "huge"), "float64"
    )
    outputs = outputs_of({attack: Stability(0.1, 3, note=attack)}, "drift", [attack])
    page = written(tmp_path / "drift.html", side, types, outputs)
    (drawing,) = (tmp_path / "reports" / "_assets").glob("charts-*.js")
    assert re.findall(r"<script[^>]*>", page) == [
        '<script defer src="../../_assets/plotly-5.24.1.min.js">',
        f'<script defer src="../../_assets/{drawing.name}">',
        '<script type="application/json">',
    ]
    assert "alert(1)" not in page.split("application/json")[1].split("</script>")[0].replace(
        "\\u0026lt;script\\u0026gt;alert(1)", ""
    )
    assert page.count("&lt;script&gt;alert(1)") == 5, "title, heading, reason, feature and note"
    drawn = page_beside(tmp_path).read_text()
    assert "Data Drift" in drawn or "evidently" in drawn.lower()
    assert "<script>alert(1)" not in drawn


def test_the_page_says_what_drifted_by_how_much_and_against_what(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(YAML + "title: Who buys?\n")
    features = {
        "calm": Stability(0.05, 10, 0.0, 0.25, 0.5),
        "moved": Stability(0.4, 10, 0.0, 0.0),
        "unknown": Stability(None, 0, note="fewer than 50 rows on a side"),
    }
    outputs = outputs_of(features, "drift", ["moved: PSI 0.400 is above 0.2"])
    page = written(
        tmp_path / "drift.html", {"moved": pa.array([1.0, 2.0] * 60)}, {"moved": "float64"}, outputs
    )
    assert "Who buys?" in page
    assert f"partition {KEYS[0]} (live), against the opponent, version 3 of {KEYS[0]}" in page
    assert "<li>moved: PSI 0.400 is above 0.2</li>" in page
    assert page.index(">moved<") < page.index(">unknown<") < page.index(">calm<")
    (indices,) = figures(page)
    (bars,) = indices["data"]
    assert (bars["y"], bars["x"]) == (["moved", "calm"], [0.4, 0.05])
    assert bars["marker"]["color"] == ["--fail", "--accent"]
    assert [mark["x0"] for mark in indices["layout"]["shapes"]] == [0.2], "the limit"
    assert re.search(r'25\.0%</td>\s*<td class="n">50\.0%', page)
    assert 'href="drift-spend.html"' in page
    assert page_beside(tmp_path).is_file()


def test_a_page_that_cannot_be_drawn_still_has_the_indices(tmp_path: Path) -> None:
    """Whole numbers so large that no ten bins fit between them stop the drawing; a page of an
    earlier run goes with it.
    """
    (tmp_path / "shop.yaml").write_text(YAML)
    page_beside(tmp_path).parent.mkdir(parents=True)
    page_beside(tmp_path).write_text("of an earlier run")
    outputs = outputs_of({"amount": Stability(0.1234, 3)})
    page = written(
        tmp_path / "drift.html",
        {"amount": pa.array([1e17, 1e17 + 16] * 100)},
        {"amount": "float64"},
        outputs,
    )
    assert "0.1234" in page
    assert "could not be drawn" in page
    assert "href=" not in page
    assert not page_beside(tmp_path).exists()


def test_of_many_features_the_chart_has_the_first_and_the_table_all(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(YAML)
    features = {f"f{number:03}": Stability(number / 1000, 10) for number in range(120)}
    page = written(tmp_path / "drift.html", {}, {}, outputs_of(features))
    (bars,) = figures(page)[0]["data"]
    assert len(bars["y"]) == drift_report.MOST_BARS
    assert bars["y"][0] == "f119"
    assert all(f">{name}<" in page for name in features)


def test_without_a_computable_index_there_is_no_chart(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(YAML)
    unknown = outputs_of({"amount": Stability(None, 0, note="not in the reference")}, "hold")
    page = written(tmp_path / "drift.html", {}, {}, unknown)
    assert figures(page) == []
    assert "not in the reference" in page
