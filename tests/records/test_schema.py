"""Values as the records store them: alike on SQLite and PostgreSQL, and safe for both."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from include.records.columns import json_digest, to_json, words
from include.records.records import Records
from include.records.rows import insert_missing
from include.records.schema import FeatureSetRow


def test_numbers_that_json_does_not_know_become_null() -> None:
    value = {"nan": float("nan"), "inf": [np.float64("-inf"), np.int64(3)], "auc": np.float32(0.5)}
    assert json.loads(to_json(value)) == {"nan": None, "inf": [None, 3], "auc": 0.5}


def test_sets_times_and_paths_become_plain_values() -> None:
    value = {"set": {"b", "a"}, "at": datetime(2026, 3, 1, tzinfo=UTC), "path": Path("/a/b"), 1: ()}
    assert json.loads(to_json(value)) == {
        "set": ["a", "b"],
        "at": "2026-03-01T00:00:00+00:00",
        "path": "/a/b",
        "1": [],
    }


def test_a_digest_is_the_same_before_and_after_a_value_is_stored() -> None:
    value = {"b": float("nan"), "a": (1, 2.0), "text": "\u00e9"}
    assert json_digest(value) == json_digest(json.loads(to_json(value)))
    assert json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("text", "kept"), [("a\x00b", "a\ufffdb"), ("\ud800", "?"), ("\u00e9", "\u00e9")]
)
def test_text_that_a_database_refuses_is_replaced(text: str, kept: str) -> None:
    assert words(text) == kept


def test_a_row_is_inserted_once_and_a_race_is_no_error(records: Records) -> None:
    with records.transaction() as session:
        values = {"use_case": "loans", "version": "v1"}
        assert insert_missing(session, FeatureSetRow, **values, definition={"a": 1})
        assert not insert_missing(session, FeatureSetRow, **values, definition={"a": 2})
    record = records.feature_sets.get("loans", "v1")
    assert record is not None
    assert record.definition == {"a": 1}
