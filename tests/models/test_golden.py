"""Golden rows: what a model must answer again, one by one and all at once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from include.errors import ArtefactError
from include.models import golden
from include.models.kinds import Fitted
from include.models.predictor import Predictor


def test_golden_rows_hold_nulls_and_an_unseen_category(fitted: Fitted) -> None:
    content = json.loads(fitted.files["golden.json"])
    codes = fitted.predictor.schema.features[2].codes or {}
    assert any(all(value is None for value in row.values()) for row in content["rows"])
    assert any(row["region"] not in (None, *codes) for row in content["rows"])
    assert fitted.predictor.check_golden() == len(content["rows"]) >= 10


def test_golden_rows_of_another_model_or_none_at_all_are_refused(
    fitted: Fitted, tmp_path: Path
) -> None:
    empty = json.dumps({"rows": [], "scores": []}).encode()
    with pytest.raises(ArtefactError, match=r"golden\.json is not the one"):
        Predictor({**fitted.files, "golden.json": empty})
    schema = json.loads(fitted.files["schema.json"])
    schema["golden"] = "sha256:" + hashlib.sha256(empty).hexdigest()
    model = Predictor(
        {**fitted.files, "golden.json": empty, "schema.json": json.dumps(schema).encode()}
    )
    with pytest.raises(ArtefactError, match="no rows to ask"):
        model.check_golden()


class Answers:
    """A model that answers `one` to each row, and `many` to all."""

    def __init__(self, one: float, many: float) -> None:
        self._one, self._many = one, many

    def one(self, row: Any) -> float:
        return self._one

    def many(self, rows: Any) -> Any:
        return np.full(len(rows), self._many)


@pytest.mark.parametrize(
    ("one", "many"), [(0.5 + 2e-9, 0.5), (0.5, 0.5 - 2e-9), (float("nan"), 0.5)]
)
def test_an_answer_beyond_the_tolerance_is_refused_whichever_way_it_was_asked(
    one: float, many: float
) -> None:
    content = golden.rows_to_json([{"a": 1}, {"a": None}], [0.5, 0.5])
    with pytest.raises(ArtefactError, match=r"golden row 0.*recorded is 0\.5; not served"):
        golden.check_answers(Answers(one, many), content)  # type: ignore[arg-type]
    close = Answers(0.5 + 5e-10, 0.5 - 5e-10)
    assert golden.check_answers(close, content) == 2  # type: ignore[arg-type]


def test_no_golden_score_is_a_number_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        golden.rows_to_json([{"a": 1}], [float("nan")])
