"""The models of the drill: what they have in common, and what an order makes of one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from include.errors import Unavailable
from include.models.bundle import digest_of
from include.models.kinds import load_files
from include.serving.isolated_model import IsolatedModel
from tests.builders.bundles import write_bundle
from tests.builders.isolated import digest_of as code_digest_of
from tests.builders.sick import Patient, alike_files, rows_of, write_patient

ROW = rows_of(1)[0]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextlib.asynccontextmanager
async def started(home: Path) -> AsyncIterator[tuple[IsolatedModel, Patient]]:
    files = alike_files(1)
    bundle = write_bundle(home / "bundle", files)
    tag, patient = write_patient(home, 1)
    patient.sicken("nan")  # which its golden rows do not show
    model = await IsolatedModel.start(
        home, tag, str(bundle), digest_of(files), seconds=60, code_digest=code_digest_of(home, tag)
    )
    patient.cure()
    try:
        yield model, patient
    finally:
        model.close()


def test_models_of_other_seeds_are_others_and_answer_alike_and_a_shifted_one_does_not() -> None:
    rows = rows_of(300)
    first, second, shifted = (
        load_files(files) for files in (alike_files(1), alike_files(2), alike_files(3, 0.8))
    )
    assert len({first.digest, second.digest, shifted.digest}) == 3
    alike, off = second.many(rows) - first.many(rows), shifted.many(rows) - first.many(rows)
    spread = float(first.many(rows).std())
    assert abs(float(alike.mean())) < 0.05 * spread
    assert float(off.mean()) > 0.5 * spread


@pytest.mark.anyio
async def test_a_patient_is_well_by_itself_and_sick_by_order(tmp_path: Path) -> None:
    async with started(tmp_path) as (model, patient):
        well = (await model.ask(ROW)).value
        patient.sicken("slow", seconds=0.05)
        slow = await model.ask(ROW)
        assert slow.value == well
        assert slow.micros is not None
        assert slow.micros >= 50_000
        patient.sicken("shifted")
        assert (await model.ask(ROW)).value > well
        patient.sicken("errors")
        with pytest.raises(Unavailable):
            await model.ask(ROW)
        patient.sicken("nan")
        assert math.isnan((await model.ask(ROW)).value)
        patient.cure()
        assert (await model.ask(ROW)).value == well, "an answer of NaN ends no process"
        patient.sicken("dies")
        with pytest.raises(Unavailable):
            await model.ask(ROW)
        assert not model.alive
