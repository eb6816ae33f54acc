"""Models on record: each version once, and what may change about it."""

from __future__ import annotations

import dataclasses

import pytest
from sqlalchemy.orm import Session

from include.errors import Conflict, EvergreenError
from include.records.records import Records
from tests.records.builders import (
    model,
)


def test_a_model_is_recorded_once(records: Records) -> None:
    made = dataclasses.replace(model(1), manifest={"lock": "x"}, run_id="r")
    assert (
        records.models.add(made)
        == made
        == records.models.add(made)
        == records.models.get("loans", 1)
    )
    with pytest.raises(Conflict, match=r"loans 1 is sha256:1, not sha256:other"):
        records.models.add(model(1, digest="sha256:other"))
    assert records.models.get("loans", 2) is None
    assert records.models.of("loans") == [made]
    assert records.models.of("other") == []


def test_equal_models_of_two_days_share_a_digest(records: Records) -> None:
    first, second = records.models.add(model(1)), records.models.add(model(2, digest="sha256:1"))
    assert first.model_digest == second.model_digest
    assert records.models.of("loans") == [first, second]


def test_what_may_change_about_a_model(records: Records) -> None:
    records.models.add(model(1))
    changed = records.models.update(
        "loans", 1, bento_tag="loans:abc", pins="sha256:p", state="challenger"
    )
    assert (changed.bento_tag, changed.pins, changed.state) == (
        "loans:abc",
        "sha256:p",
        "challenger",
    )
    for wrong in ({"model_digest": "x"}, {"state": "best"}):
        with pytest.raises(EvergreenError, match="cannot be set"):
            records.models.update("loans", 1, **wrong)
    with pytest.raises(Conflict, match="no model version 9"):
        records.models.update("loans", 9, state="retired")
    assert records.models.get("loans", 1) == changed


def test_a_model_in_the_callers_transaction_goes_with_it(records: Records) -> None:
    def fail(session: Session) -> None:
        records.models.add(model(1), session=session)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        records.database.write(fail)
    assert records.models.of("loans") == []
