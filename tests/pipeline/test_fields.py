"""Declared fields are complete: each stage runs with a use case that records what is read, and
must have declared it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include.config import use_case_file
from include.config.use_case import UseCase
from include.config.use_case_sources import Strict
from include.pipeline import execution
from include.pipeline.flow import ENTRY
from include.validation import expectations
from tests.builders.intake import GOOD, HEAD, Intake
from tests.builders.judging import NAME, Bench, new_bench

# Read by many and no input of a result: each with the reason.
ELSEWHERE = {
    "name": "another name is another use case, with tables and records of its own",
    "title": "shown on pages, which no digest holds",
    "owner": "shown on pages, which no digest holds",
    "folder": "where the YAML lies; the files that it names count by their content",
    "history.last": "bounds which partitions there are, never what is in one",
}
# A page says that its data have no time; another day is another partition with other rows.
_CAVEAT = {"sources": "shown on pages, as is label.source", "label.source": "shown on pages"}
# Read by one stage and no input of its result.
APART: dict[str, dict[str, str]] = {
    "materialize_features": {
        "history.first": "clips the lookback; the partitions that are left are among the reads"
    },
    "train_model": {
        "sources": "which sources may have gaps decides which partitions may be missing; those "
        "that are there are among the reads"
    },
    "evaluate_model": _CAVEAT,
    "check_drift": _CAVEAT,
}


class Recorded:
    """Which fields of a use case are read while `on` is set, by their dotted names."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: set[str] = set()
        self.on = False
        self._paths: dict[int, str] = {}
        self._kept: list[UseCase] = []
        plain = Strict.__getattribute__
        recorder = self

        def read(self: Strict, name: str) -> Any:
            value = plain(self, name)
            if recorder.on and name in type(self).model_fields and not isinstance(value, Strict):
                where = recorder._paths.get(id(self))
                if where is not None:
                    recorder.seen.add(f"{where}.{name}".strip("."))
            return value

        patch.setattr(Strict, "__getattribute__", read)
        patch.setattr(execution, "find", self.find)

    def find(self, name: str, folders: list[Path]) -> UseCase:
        """Return a use case whose parts are known by their place."""
        use_case = use_case_file.find(name, folders)
        self._kept.append(use_case)  # as long as it lives no other object has its id
        self._place(use_case, "")
        return use_case

    def _place(self, part: Any, where: str) -> None:
        if isinstance(part, Strict):
            self._paths[id(part)] = where
            for name in type(part).model_fields:
                self._place(getattr(part, name), f"{where}.{name}".strip("."))
        elif isinstance(part, dict):
            for one in part.values():
                self._place(one, where)

    @contextmanager
    def computing(self, stage: str, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Record what the stage's `compute` reads; what `inputs` reads shows in what it returns."""
        module = importlib.import_module(ENTRY[stage])
        compute = module.STAGE.compute
        self.seen.clear()

        def recorded(context: Any) -> Any:
            self.on = True
            try:
                return compute(context)
            finally:
                self.on = False

        with patch.context() as inner:
            inner.setattr(module, "STAGE", replace(module.STAGE, compute=recorded))
            yield

    def undeclared(self, stage: str) -> set[str]:
        """Return what was read and is neither declared nor listed with a reason."""
        fields = execution.load_stage(stage).fields
        assert self.seen, f"{stage} read nothing at all"
        known = {*fields, *ELSEWHERE, *APART.get(stage, {})}
        return {
            name
            for name in self.seen
            if not any(name == one or name.startswith(f"{one}.") for one in known)
        }


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setattr(expectations, "data_docs", lambda *_: "")
    return Recorded(monkeypatch)


LABEL_SQL = """label:
  delay: 1d
  sql: SELECT customer_id, event_timestamp, created_timestamp AS label_timestamp,
      paid AS label FROM orders
"""


@pytest.mark.parametrize("label", ["column", "sql"])
def test_the_data_stages_read_what_they_declare(
    tmp_path: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    made = Intake(tmp_path)
    path = made.folder / "shop.yaml"
    text = path.read_text()
    static = (
        "sources:\n  branches:\n    kind: static\n    valid_from: 2026-01-01\n    path: "
        "branches.csv\n    key: [branch]\n"
    )
    text = text.replace("sources:\n", static + "    columns: {branch: {type: string}}\n")
    text = text.replace(
        "features:\n",
        "features:\n  order: {grain: event, source: orders, columns: {amount: float64}}\n",
    )
    if label == "sql":
        text = text[: text.index("label:")] + LABEL_SQL + text[text.index("features:") :]
    path.write_text(text)
    made.put(HEAD + GOOD)
    made.put("branch\nmain\n", "branches.csv")
    for stage in ("ingest_data", "validate_data", "materialize_features"):
        with recorded.computing(stage, monkeypatch):
            assert made.run(stage, "2026-01-01").state == "done"
        assert recorded.undeclared(stage) == set(), stage


@pytest.mark.slow
def test_the_judging_stages_read_what_they_declare(
    tmp_path: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Bench = new_bench(tmp_path)
    made.write()
    for key in ("2026-02-05", "2026-02-06"):
        for stage in ("train_model", "evaluate_model", "check_drift"):
            with recorded.computing(stage, monkeypatch):
                assert made.run(stage, key).state in ("done", "held")
            assert recorded.undeclared(stage) == set(), stage
        made.release(made.model(key).version, key)
    assert made.records.routes.get(NAME).champion is not None
