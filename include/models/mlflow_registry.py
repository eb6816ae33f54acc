"""MLflow's registry: log a training run, register its model, mirror the aliases.

The records database is the truth; MLflow is the show-window, and every call here can be repeated
after a kill: a run that a dead process left open is closed as FAILED, and a version of the same
model digest and partition is found again instead of doubled. Logging is by hand and in few calls:
autolog, `log_input` and inferred requirements cost seconds each.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from include.config.names import NAME
from include.config.settings import Settings
from include.errors import ConfigError
from include.models.bundle import SCHEMA
from include.models.kinds import kind_in
from include.models.mlflow_client import (
    connected,
    may_hold_any,
    mlflow_error,
)
from include.models.mlflow_places import artefact_place, follow_move, log_files
from include.records.models import Model
from include.records.restarts import through_restarts
from include.records.route_changes import Route

PREFIX = "evergreen."
ALIASES = ("champion", "challenger", "previous")
_KEY = re.compile(r"\d{4}-\d{2}-\d{2}")  # nothing in it can end the quotes of a filter string
MAX_PARAM = 5900  # characters; MLflow refuses a parameter of more than 6000


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What is logged of one training; `folder` holds the bundle."""

    use_case: str
    key: str
    as_of: str
    mode: str
    model_digest: str
    folder: Path
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Registered:
    """A model version and the run that made it; `reused` says that it was there already."""

    version: int
    run_id: str
    reused: bool


@through_restarts
def close_stale_runs(settings: Settings, use_case: str, key: str) -> int:
    """Mark runs of a partition that are still RUNNING as FAILED and return how many there were.

    Only the holder of the partition's training lease may call it: whoever left them open is dead or
    superseded.
    """
    with connected(settings) as client:
        experiment = _experiment(client, settings, name_of(use_case))
        return _close_runs(client, experiment, _key(key))


@through_restarts
def register(
    settings: Settings, training: TrainingRun, *, check: Callable[[], None] | None = None
) -> Registered:
    """Log a training and register its model, or return the version that is there already.

    That is the version of the same model digest and partition. `check` is called right before a
    version is made; it raises when the caller's lease was superseded.

    Raises:
        Unavailable: MLflow does not answer; nothing is registered.
    """
    name, key = name_of(training.use_case), _key(training.key)
    with connected(settings) as client:
        tags = {
            "use_case": name,
            "partition": key,
            "as_of": training.as_of,
            "mode": training.mode,
            "model_digest": training.model_digest,
        }
        present = _find_version(client, name, key, training.model_digest)
        if present is not None:
            client.set_model_version_tag(name, str(present.version), f"{PREFIX}mode", training.mode)
            return present
        experiment = _experiment(client, settings, name)
        _close_runs(client, experiment, key)  # of a try that lost its connection half-way
        run = client.create_run(
            experiment,
            tags={f"{PREFIX}{tag}": value for tag, value in tags.items()},
            run_name=f"{key} {training.model_digest[7:15]}",
        )
        run_id = str(run.info.run_id)
        try:
            _log(client, settings, run, training)
            if check is not None:
                check()
            _ensure_model(client, name)
            version = client.create_model_version(
                name,
                source=f"{run.info.artifact_uri}/model",
                run_id=run_id,
                tags={f"{PREFIX}{tag}": value for tag, value in tags.items()},
            )
        except BaseException:  # also Ctrl-C: a run that stays RUNNING looks like work going on
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")
        return Registered(int(version.version), run_id, reused=False)


@through_restarts
def set_mode(settings: Settings, use_case: str, version: int, mode: str) -> bool:
    """Show the mode of a version's partition and tell whether it changed.

    A mode can rise from backfill to live.
    """
    with connected(settings) as client:
        shown = client.get_model_version(name_of(use_case), str(version)).tags.get(f"{PREFIX}mode")
        if shown != mode:
            client.set_model_version_tag(use_case, str(version), f"{PREFIX}mode", mode)
    return bool(shown != mode)


@through_restarts
def log_verdict(
    settings: Settings,
    *,
    use_case: str,
    version: int,
    run_id: str,
    verdict: str,
    metrics: Mapping[str, float],
) -> None:
    """Put the verdict on the model version and the evaluation's metrics on its run."""
    with connected(settings) as client:
        client.set_model_version_tag(name_of(use_case), str(version), f"{PREFIX}verdict", verdict)
        client.log_batch(run_id, metrics=_metrics(metrics, prefix="evaluation_"))


@through_restarts
def mirror_aliases(
    settings: Settings, use_case: str, route: Route, *, challenger: int | None = None
) -> dict[str, int | None]:
    """Make the aliases those of the routing row and return what was changed.

    `challenger` (see `waiting_challenger`) is shown while the routing row has none on its way.
    """
    wanted = {
        "champion": route.champion,
        "challenger": route.challenger or challenger,
        "previous": route.previous,
    }
    name, changed = name_of(use_case), {}
    with connected(settings) as client:
        present = _present_aliases(client, name)
        if present is None and not any(wanted.values()):
            return {}
        for alias in ALIASES:
            target = wanted[alias]
            shown = (present or {}).get(alias)
            if shown == target:
                continue
            # One that was collected, and trained again since, has another number here.
            if target is not None and not _has_version(client, name, target):
                if shown is None:
                    continue
                target = None
            if target is None:
                client.delete_registered_model_alias(name, alias)
            else:
                client.set_registered_model_alias(name, alias, str(target))
            changed[alias] = target
    return changed


def waiting_challenger(models: Iterable[Model], route: Route) -> int | None:
    """Return the newest version that passed the gate and waits for its release, or None."""
    passed = [
        model
        for model in models
        if model.state == "challenger" and model.version not in (route.champion, route.previous)
    ]
    waiting = [
        model for model in passed if route.watermark is None or model.partition >= route.watermark
    ]
    return max(((model.partition, model.version) for model in waiting), default=(None, None))[1]


@through_restarts
def aliases(settings: Settings, use_case: str) -> dict[str, int]:
    """Return the aliases as MLflow shows them."""
    with connected(settings) as client:
        return _present_aliases(client, name_of(use_case)) or {}


@through_restarts
def count_entries(settings: Settings, use_case: str) -> dict[str, int]:
    """Return how many versions and runs MLflow has of a use case."""
    name = name_of(use_case)
    if not may_hold_any(settings):
        return {}
    with connected(settings) as client:
        experiment = client.get_experiment_by_name(name)
        runs = []
        if experiment is not None and experiment.lifecycle_stage == "active":
            runs = client.search_runs([experiment.experiment_id], max_results=1000)
        versions = client.search_model_versions(f"name = '{name}'", max_results=1000)
    return {"model versions": len(versions), "runs": len(runs)}


@through_restarts
def forget(settings: Settings, use_case: str, *, at: datetime) -> None:
    """Delete the registered model of a use case, and its experiment with all runs.

    The experiment takes another name first: MLflow only marks it as deleted (`mlflow gc` removes
    it), and a later training could make none of the same name. Killed in between, it is found again
    by that name.
    """
    name = name_of(use_case)
    if not may_hold_any(settings):
        return
    mark = f"{name} (reset "
    with connected(settings) as client:
        if _present_aliases(client, name) is not None:
            client.delete_registered_model(name)
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            if experiment.lifecycle_stage != "active":  # deleted by hand: it could not be renamed
                client.restore_experiment(experiment.experiment_id)
            client.rename_experiment(experiment.experiment_id, f"{mark}{at.isoformat()})")
        for renamed in client.search_experiments(filter_string=f"name LIKE '{mark}%'"):
            if renamed.name.startswith(mark):  # in LIKE an underscore stands for any letter
                client.delete_experiment(renamed.experiment_id)


def name_of(use_case: str) -> str:
    """Return the registered model's name, which is the use case's.

    Raises:
        ConfigError: it is no plain name (a path, a control character, an encoded one).
    """
    if not re.fullmatch(NAME.strip("^$"), use_case):
        raise ConfigError(f"{use_case!r} is no model name; names match {NAME}")
    return use_case


def _key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ConfigError(
            f"{key!r} is no partition key; write the period's first day as YYYY-MM-DD"
        )
    return key


def _close_runs(client: Any, experiment: str, key: str) -> int:
    runs = client.search_runs(
        [experiment], f"tags.`{PREFIX}partition` = '{key}' and attributes.status = 'RUNNING'"
    )
    for run in runs:
        client.set_terminated(run.info.run_id, "FAILED")
    return len(runs)


def _present_aliases(client: Any, name: str) -> dict[str, int] | None:
    """Return the version of each alias, or None where there is no such model."""
    try:
        model = client.get_registered_model(name)
    except mlflow_error() as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return {alias: int(version) for alias, version in (model.aliases or {}).items()}


def _has_version(client: Any, name: str, version: int) -> bool:
    """Tell whether a version is registered."""
    try:
        client.get_model_version(name, str(version))
    except mlflow_error() as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def _find_version(client: Any, name: str, key: str, model_digest: str) -> Registered | None:
    """Return the oldest version of a model digest and partition, its run ended well."""
    versions = client.search_model_versions(
        f"name = '{name}' and tags.`{PREFIX}partition` = '{key}'"
    )
    same = [
        version for version in versions if version.tags.get(f"{PREFIX}model_digest") == model_digest
    ]
    if not same:
        return None
    first = min(same, key=lambda version: int(version.version))
    # Killed between the version and the run's end.
    if client.get_run(first.run_id).info.status != "FINISHED":
        client.set_terminated(first.run_id, "FINISHED")
    return Registered(int(first.version), str(first.run_id), reused=True)


def _experiment(client: Any, settings: Settings, name: str) -> str:
    """Return the id of a use case's experiment, made if it is missing."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # A server knows where its artefacts lie, a database does not.
        served = settings.mlflow_address.startswith("http")
        folder = None if served else artefact_place(settings, name)
        try:
            return str(client.create_experiment(name, folder))
        except mlflow_error() as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another process was faster
    follow_move(client, settings, name, experiment)
    return str(experiment.experiment_id)


def _ensure_model(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except mlflow_error() as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log(client: Any, settings: Settings, run: Any, training: TrainingRun) -> None:
    """Log parameters, metrics, manifest, bundle, and the model in MLflow's own form."""
    from mlflow.entities import Param

    params = [Param(key, str(value)[:MAX_PARAM]) for key, value in training.params.items()]
    client.log_batch(run.info.run_id, metrics=_metrics(training.metrics), params=params)
    kind = kind_in((training.folder / SCHEMA).read_bytes())
    with tempfile.TemporaryDirectory() as scratch:
        kind.save_for_mlflow(training.folder, Path(scratch) / "model", digest=training.model_digest)
        manifest = Path(scratch) / "manifest.json"
        manifest.write_text(json.dumps(training.manifest, indent=1, default=str, sort_keys=True))
        folders = {"": Path(scratch), "bundle": training.folder}
        log_files(client, settings, run, folders)


def _metrics(metrics: Mapping[str, float], prefix: str = "") -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(f"{prefix}{key}", value, 0, 0)
        for key, value in metrics.items()
        if value is not None and math.isfinite(value)
    ]
