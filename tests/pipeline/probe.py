"""A small stage that tests of the pipeline drive in the place of `validate_data`."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from include.clock import utc_now
from include.config.settings import Settings
from include.lake.digests import digest
from include.pipeline import execution, runner
from include.pipeline.stage import Input, Outcome, Stage, StageContext
from include.records.records import Records

KEY = "2026-03-01"


class Probe(types.ModuleType):
    """The module of a stage that writes `value` into the lake and counts what was asked of it."""

    def __init__(self) -> None:
        super().__init__("include.validation.validate_data")
        self.STAGE = Stage(
            "validate_data",
            ("label.delay",),
            ("duckdb",),
            self.inputs,
            self.compute,
            self.compute_range,
            self.effects,
        )
        self.value, self.source = 1, "sha256:a"
        self.computed: list[str] = []
        self.effected: list[str] = []
        self.error: Exception | None = None

    def inputs(self, context: StageContext) -> list[Input]:
        return [Input("shop/raw/orders", context.key, self.source)]

    def compute(self, context: StageContext) -> Outcome:
        self.computed.append(context.key)
        if self.error is not None:
            raise self.error
        rows = pa.table({"value": [self.value]})
        context.lake.replace(
            context.table("curated/orders"), context.key, rows, fence=context.fence
        )
        return Outcome("done", digest(rows, sort_by=["value"]), outputs={"rows": 1})

    def compute_range(self, contexts: list[StageContext]) -> Iterator[tuple[StageContext, Outcome]]:
        for context in contexts:
            yield context, self.compute(context)

    def effects(self, context: StageContext, outcome: Outcome) -> dict[str, Any]:
        self.effected.append(context.key)
        return {"seen": outcome.digest}


def records(home: Settings) -> Records:
    return Records.open(home.records_address)


def go(home: Settings, key: str = KEY, mode: str = "backfill", **options: Any) -> execution.Report:
    records(home).partitions.raise_to(
        "shop", key, mode=mode, target="judged", actor="test", at=utc_now()
    )  # type: ignore[arg-type]
    return runner.run("validate_data", "shop", key, settings=home, **options)
