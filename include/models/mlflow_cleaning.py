"""Remove versions and runs from MLflow that no model on record needs, files and rows.

MLflow itself only marks a run as deleted. Where it is a database, the rows go by what `mlflow gc`
calls; a server keeps them, marked, until `mlflow gc` is run beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from include.config.settings import Settings
from include.models.mlflow_client import (
    connected,
    may_hold_any,
    mlflow_error,
)
from include.models.mlflow_registry import PREFIX, name_of
from include.records.restarts import through_restarts

_PAGE = 500


class Entry(NamedTuple):
    """A version or a run of a use case; `version` is 0 for a run.

    `partition` is the one that it was made for, as its tag says.
    """

    run_id: str
    version: int
    partition: str
    made_at: datetime


@through_restarts
def entries(settings: Settings, use_case: str) -> list[Entry]:
    """Return the versions and runs that our trainings have made, also runs marked as deleted.

    Those not where that is all that can be done to them.

    Raises:
        Unavailable: MLflow does not answer.
    """
    if not may_hold_any(settings):
        return []
    name = name_of(use_case)
    with connected(settings) as client:
        versions = [
            Entry(str(found.run_id), int(found.version), tag, _instant(found.creation_timestamp))
            for found in _pages(client.search_model_versions, f"name = '{name}'")
            if (tag := found.tags.get(f"{PREFIX}partition"))
        ]
        is_final = _remover(client) is None
        return versions + [
            Entry(str(run.info.run_id), 0, tag, _instant(run.info.start_time))
            for run in _runs(client, name)
            if (tag := run.data.tags.get(f"{PREFIX}partition"))
            and not (is_final and run.info.lifecycle_stage == "deleted")
        ]


@through_restarts
def without_run(settings: Settings, run_ids: Sequence[str]) -> list[str]:
    """Return those of some ids of which MLflow knows no run, whoever has made it.

    Raises:
        Unavailable: MLflow does not answer.
    """
    if not run_ids or not may_hold_any(settings):
        return list(run_ids)
    found = []
    with connected(settings) as client:
        for run_id in run_ids:
            try:
                client.get_run(run_id)
            except mlflow_error() as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                found.append(run_id)
    return found


@through_restarts
def remove_version(settings: Settings, use_case: str, version: int) -> None:
    """Remove a registered version; one that is not there is passed over.

    Raises:
        Unavailable: MLflow does not answer.
    """
    with connected(settings) as client:
        try:
            client.delete_model_version(name_of(use_case), str(version))
        except mlflow_error() as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise


@through_restarts
def remove_run(settings: Settings, run_id: str) -> None:
    """Remove a run with its parameters and metrics; one that is not there is passed over.

    Raises:
        Unavailable: MLflow does not answer.
    """
    with connected(settings) as client:
        try:
            if client.get_run(run_id).info.lifecycle_stage != "deleted":
                client.delete_run(run_id)
            remove_for_good = _remover(client)
            if remove_for_good is not None:
                remove_for_good(run_id)
        except mlflow_error() as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise


def _remover(client: Any) -> Callable[[str], object] | None:
    """Return what removes a run for good; None: a server, which only marks it."""
    found: Callable[[str], object] | None = getattr(
        client._tracking_client.store, "_hard_delete_run", None
    )
    return found


def _runs(client: Any, name: str) -> Iterator[Any]:
    """Yield the runs of a use case's experiment, and of those that a reset has renamed."""
    from mlflow.entities import ViewType

    ids = []
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        ids.append(experiment.experiment_id)
    mark = f"{name} (reset "
    for renamed in client.search_experiments(
        view_type=ViewType.DELETED_ONLY, filter_string=f"name LIKE '{mark}%'"
    ):
        if renamed.name.startswith(mark):  # in LIKE an underscore stands for any letter
            ids.append(renamed.experiment_id)
    if ids:
        yield from _pages(client.search_runs, ids, run_view_type=ViewType.ALL)


def _pages(search: Any, *given: Any, **options: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*given, max_results=_PAGE, page_token=token, **options)
        yield from page
        token = page.token
        if not token:
            return


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp((milliseconds or 0) / 1000, UTC)
