"""The rows that are judged are those that were stored, or there is no judgement."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

from include.errors import EvergreenError
from include.records.schema import ModelRow
from tests.builders.judging import EARLY, MIDDLE, NAME, Bench


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2], ids=["the opponent's", "the candidate's"])
def test_a_training_set_with_as_many_other_rows_is_no_training_set(
    bench: Bench, version: int
) -> None:
    """The lake gives back other values than were trained on, as a cast once did: as many rows,
    another digest.
    """
    bench.judged(EARLY)
    bench.release(1, EARLY)
    bench.run("train_model", MIDDLE)
    made = bench.model((EARLY, MIDDLE)[version - 1]).manifest["training_set"]
    key = (EARLY, MIDDLE)[version - 1]
    rows = bench.lake.read(made["table"], keys=[key], version=made["table_version"]).drop_columns(
        ["partition"]
    )
    place = rows.schema.get_field_index("visits")
    other = bench.lake.replace(
        made["table"], key, rows.set_column(place, "visits", pc.add(rows["visits"], 1))
    )
    if version == 2:
        bench.edit_result("train_model", MIDDLE, training_set={"table_version": other})
        with pytest.raises(
            EvergreenError,
            match=r"holds sha256:\w+ in version \d+, recorded are \d+ rows of sha256",
        ):
            bench.run("evaluate_model", MIDDLE)
        return
    with bench.records.transaction() as session:
        row = session.get_one(ModelRow, (NAME, 1))
        row.manifest = {**row.manifest, "training_set": {**made, "table_version": other}}
    outputs = bench.run("evaluate_model", MIDDLE).outputs
    assert outputs["verdict"] == "hold"
    assert "version 1 cannot be asked" in outputs["reasons"][0]
