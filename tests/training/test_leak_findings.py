"""Findings: what ends a training, what is asked, and what digests are over."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from include.errors import ConfigError
from include.pipeline.training_outputs import Leaks
from include.training import leak_findings
from include.training.leak_findings import Finding, Findings


def finding(level: leak_findings.Level, *columns: str) -> Finding:
    return Finding("pure", level, columns, "evidence", "remedy")


def test_refusals_end_training_and_one_line_leaves_each_column_out_once() -> None:
    found = Findings(
        "shop",
        (finding("refusal", "a", "b"), finding("question", "c"), finding("refusal", "a")),
        excluded=("z",),
    )
    assert [one.columns for one in found.questions] == [("c",)]
    with pytest.raises(ConfigError) as caught:
        found.refuse()
    message = str(caught.value)
    assert message.startswith("shop: 2 of its features cannot be trained on\n- evidence. remedy")
    assert message.endswith("write `training: {exclude: [z, a]}`")
    Findings("shop", (finding("question", "c"),)).refuse()


def test_carriers_are_named_by_what_is_lost_without_them_then_by_themselves() -> None:
    own = {"a": 0.6, "b": 0.9, "c": 0.7, "d": 0.5, "e": 0.8, "f": 0.55}
    found = Findings("shop", feature_auc=own, gains={"a": 0.1})
    assert found.carriers == ["a", "b", "e", "c", "f"]
    assert found.recorded().carriers == found.carriers


def test_another_wording_is_no_other_number() -> None:
    leaks = msgspec.to_builtins(Leaks(found=[finding("question", "c").recorded()]))
    other = Finding("pure", "question", ("c",), "other words", "another remedy")
    reworded = msgspec.to_builtins(Leaks(found=[other.recorded()]))
    first, second = ({"leaks": one, "metrics": {}} for one in (leaks, reworded))
    assert leak_findings.without_prose(first) == leak_findings.without_prose(second)
    graver = {"leaks": {**leaks, "found": [{**leaks["found"][0], "level": "refusal"}]}}
    assert (
        leak_findings.without_prose(graver)["leaks"] != leak_findings.without_prose(first)["leaks"]
    )


@pytest.mark.parametrize("numbers", [{}, {"leaks": None}, {"leaks": {}, "counts": 1}])
def test_records_without_findings_stay_as_they_are(numbers: dict[str, Any]) -> None:
    assert leak_findings.without_prose(numbers) == numbers
