"""The command `models`; `status` shows its newest rows too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from include.cli.context import (
    UseCaseArgument,
    current_settings,
    find_use_case,
    open_records,
)
from include.cli.output import json_option, print_json, print_line, print_table
from include.pipeline.evaluation_outputs import EvaluationOutputs
from include.pipeline.flow import GOAL

if TYPE_CHECKING:
    from include.records.records import Records

KEYS = (
    "version",
    "partition",
    "state",
    "mode",
    "auc",
    "verdict",
    "serves_as",
    "feature_set",
    "model_digest",
    "on_hold",
    "collected_at",
)
COLUMNS = (
    "version",
    "partition",
    "state",
    "mode",
    "AUC",
    "verdict",
    "serves as",
    "feature set",
    "digest",
    "on hold",
)


def models(use_case: UseCaseArgument, json: Annotated[bool, json_option(KEYS)] = False) -> None:
    """List the models of a use case, the newest first: how each was judged, what it serves as.

    State: candidate (just trained), challenger (passed the gate), released (serves or has served),
    retired (taken back); collected: its files are gone, training its partition again makes them.
    Serves as: champion (answers requests), previous (where a rollback goes
    back to), challenger (answers its share of requests). AUC and verdict are the evaluation's.
    """
    settings = current_settings()
    case = find_use_case(settings, use_case)
    rows = model_rows(open_records(settings), case.name)
    if json:
        print_json(rows)
    elif rows:
        show_models(rows)
    else:
        train = f"evergreen run all --use-case {case.name} --partition KEY"
        print_line(f"{case.name}: no model yet; `{train}` trains one")


def model_rows(records: Records, use_case: str) -> list[dict[str, Any]]:
    """Return one row with `KEYS` for each model, the newest first, from what is on record."""
    from include.pipeline.status import verdict

    route = records.routes.get(use_case)
    roles = {route.previous: "previous", route.challenger: "challenger", route.champion: "champion"}
    results = records.results.of(use_case, stage=GOAL["judged"])
    verdicts = {result.key: EvaluationOutputs.of(result) for result in results}
    judgements = {(result.key, verdicts[result.key].version): result for result in results}
    rows = []
    for model in reversed(records.models.of(use_case)):
        result = judgements.get((model.partition, model.version))
        metrics = {} if result is None else verdicts[result.key].metrics or {}
        values = (
            model.version,
            model.partition,
            model.state,
            model.mode,
            metrics.get("auc"),
            None if result is None else verdict(result),
            roles.get(model.version),
            model.feature_set,
            model.model_digest,
            model.model_digest in route.held,
            model.collected_at,
        )
        rows.append(dict(zip(KEYS, values, strict=True)))
    return rows


def show_models(rows: Sequence[Mapping[str, Any]]) -> None:
    """Show the rows of models as a table."""
    print_table(COLUMNS, [_cells(row) for row in rows])


def _cells(row: Mapping[str, Any]) -> list[Any]:
    """Return the cells of a row as a person reads them."""
    cells = dict(row)
    cells["auc"] = None if row["auc"] is None else f"{row['auc']:.4f}"
    cells["serves_as"] = row["serves_as"] or "-"
    cells["model_digest"] = row["model_digest"].removeprefix("sha256:")[:12]
    cells["on_hold"] = "yes" if row["on_hold"] else "no"
    if row["collected_at"] is not None:
        cells["state"] = f"{row['state']}, collected"
    return [cells[name] for name in KEYS if name != "collected_at"]
