"""Answer what a waiting task asks: is the period over, are the inputs on record?

Each question is a plain function that is called again and again, in the task and then in the
triggerer. It returns None for "ask again", or a small answer; an answer with `error` (a name from
include.errors) and `message` fails the task.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from include.clock import utc_now
from include.config.settings import Settings, settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.errors import EvergreenError, MissingPartition, Unavailable
from include.orchestration.airflow_api import AirflowApi
from include.orchestration.airflow_runs import Run
from include.orchestration.pending import SeenRun, StageRecord, is_coming, keys_not_coming
from include.pipeline.execution import Execution
from include.pipeline.flow import STAGES, upstream
from include.pipeline.task_records import task_records
from include.point_in_time import partitions
from include.records.records import Records

log = logging.getLogger(__name__)

Answer = dict[str, Any]
FIRST, LAST = "0000-00-00", "9999-99-99"  # before and after every key, which are compared as text


def check_period_over(use_case: str, key: str) -> Answer | None:
    """Answer once the partition's `as_of` has passed."""
    as_of = partitions.period(find(use_case, settings().usecase_dirs), key).as_of
    return {"as_of": as_of.isoformat()} if utc_now() >= as_of else None


def check_inputs(use_case: str, key: str, stage: str) -> Answer | None:
    """Answer once all that `stage` reads is recorded, or once what is missing is not coming."""
    records = task_records(settings())
    try:
        _ask_for_inputs(stage, use_case, key, records)
    except MissingPartition as error:
        return _answer_missing(stage, find(use_case, settings().usecase_dirs), error, records)
    except EvergreenError:
        return {"inputs": "unknown"}  # the stage itself will say, and record, what is wrong
    return {"inputs": "there"}


def _ask_for_inputs(stage: str, use_case: str, key: str, records: Records) -> None:
    """Ask a stage for what it reads, without a lease: nothing is written.

    Raises:
        MissingPartition: something is not recorded.
    """
    execution = Execution.begin(stage, use_case, settings=settings(), actor="readiness")
    partition = records.partitions.get(use_case, key)
    if partition is not None:
        execution.stage.inputs(execution.context(key, partition=partition))


def _answer_missing(
    stage: str, use_case: UseCase, error: MissingPartition, records: Records
) -> Answer | None:
    now = utc_now()
    try:
        runs = list_seen_runs(settings(), use_case.name, error.keys)
    except Unavailable as unavailable:
        log.warning("%s; asking again", unavailable)  # the API server may just be restarting
        return None
    coming = {key for key in error.keys if _is_coming(key, stage, use_case, runs, records, now)}
    if error.keys and not keys_not_coming(error.keys, coming):
        log.info("%s of %s waits for %s", stage, use_case.name, ", ".join(error.keys))
        return None
    return {"error": "MissingPartition", "message": str(error), "keys": list(error.keys)}


def _is_coming(
    key: str, stage: str, use_case: UseCase, runs: list[SeenRun], records: Records, now: datetime
) -> bool:
    results = {name: records.results.get(use_case.name, key, name) for name in upstream(stage)}
    partition = records.partitions.get(use_case.name, key)
    return is_coming(
        key,
        stage=stage,
        runs=runs,
        recorded={
            name: StageRecord(name, result.state, result.finished_at)
            for name, result in results.items()
            if result is not None
        },
        target=partition.target if partition else None,
        transit=use_case.wait.transit,
        now=now,
    )


def list_seen_runs(settings: Settings, use_case: str, keys: tuple[str, ...]) -> list[SeenRun]:
    """Return Airflow's runs about these keys, and the active ones of `load_history`, over REST."""
    stages = {f"{use_case}__{dag}": dag for dag in STAGES}
    with AirflowApi(settings) as api:
        runs = api.runs(prefix=f"{use_case}__", states=("queued", "running"))
        if len(keys) <= 10:  # a request each; who waits for many waits for active runs
            runs += [
                run
                for key in keys
                for run in api.runs(prefix=f"{use_case}__", key=key, states=("success",))
            ]
    seen = [
        SeenRun(stages[run.dag_id], run.state, run.ended, run.key, run.key)
        for run in runs
        if run.dag_id in stages and run.key
    ]
    return seen + [_loading(run) for run in runs if run.dag_id == f"{use_case}__load_history"]


def _loading(run: Run) -> SeenRun:
    """Return a load as a run up to the last key of its form.

    From the first key there is: what the views look back on is loaded too.
    """
    return SeenRun("load_history", run.state, run.ended, FIRST, run.conf.get("last") or LAST)
