"""MLflow: log a training run, register its model, mirror the aliases.

The records database is the truth; MLflow is the show-window, and every call here can be repeated
after a kill: a run that a dead process left open is closed as FAILED, and a version of the same
model digest and partition is found again instead of doubled. Logging is by hand and in few calls:
autolog, `log_input` and inferred requirements cost seconds each.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from include.config.names import NAME
from include.config.settings import Settings
from include.errors import ConfigError, Unavailable
from include.models.bundle import SCHEMA
from include.models.kinds import kind_in
from include.records.models import Model
from include.records.routes import Route

log = logging.getLogger(__name__)

PREFIX = "evergreen."
ALIASES = ("champion", "challenger", "previous")
_KEY = re.compile(r"\d{4}-\d{2}-\d{2}")


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


def prepare(settings: Settings) -> None:
    """Make MLflow's tables; safe when several processes do it at once."""
    with _mapped(settings) as client:
        client.search_experiments(max_results=1)


def close_stale_runs(settings: Settings, use_case: str, key: str) -> int:
    """Mark runs of a partition that are still RUNNING as FAILED and return how many there were.

    Only the holder of the partition's training lease may call it: whoever left them open is dead or
    superseded.
    """
    with _mapped(settings) as client:
        experiment = _experiment(client, settings, name_of(use_case))
        runs = client.search_runs(
            [experiment],
            f"tags.`{PREFIX}partition` = '{_key(key)}' and attributes.status = 'RUNNING'",
        )
        for run in runs:
            client.set_terminated(run.info.run_id, "FAILED")
    return len(runs)


def find_version(
    settings: Settings, use_case: str, key: str, model_digest: str
) -> Registered | None:
    """Return the version of a model digest and partition, if there is one."""
    with _mapped(settings) as client:
        return _find(client, name_of(use_case), _key(key), model_digest)


def register(
    settings: Settings, training: TrainingRun, *, check: Callable[[], None] | None = None
) -> Registered:
    """Log a training and register its model, or return the version that holds the same model for
    the same partition.

    `check` is called right before the version is made; it raises when the caller's lease was
    superseded.
    """
    name, key = name_of(training.use_case), _key(training.key)
    with _mapped(settings) as client:
        tags = {
            "use_case": name,
            "partition": key,
            "as_of": training.as_of,
            "mode": training.mode,
            "model_digest": training.model_digest,
        }
        known = _find(client, name, key, training.model_digest)
        if known is not None:
            client.set_model_version_tag(name, str(known.version), f"{PREFIX}mode", training.mode)
            return known
        experiment = _experiment(client, settings, name)
        run = client.create_run(
            experiment,
            tags={f"{PREFIX}{tag}": value for tag, value in tags.items()},
            run_name=f"{key} {training.model_digest[7:15]}",
        )
        run_id = str(run.info.run_id)
        try:
            _log(client, run_id, training)
            if check is not None:
                check()
            _ensure_model(client, name)
            made = client.create_model_version(
                name,
                source=f"{run.info.artifact_uri}/model",
                run_id=run_id,
                tags={f"{PREFIX}{tag}": value for tag, value in tags.items()},
            )
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")
        return Registered(int(made.version), run_id, reused=False)


def set_mode(settings: Settings, use_case: str, version: int, mode: str) -> bool:
    """Show the mode of a version's partition, which can rise from backfill to live; tell whether
    it changed.
    """
    with _mapped(settings) as client:
        shown = client.get_model_version(name_of(use_case), str(version)).tags.get(f"{PREFIX}mode")
        if shown != mode:
            client.set_model_version_tag(use_case, str(version), f"{PREFIX}mode", mode)
    return bool(shown != mode)


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
    with _mapped(settings) as client:
        client.set_model_version_tag(name_of(use_case), str(version), f"{PREFIX}verdict", verdict)
        client.log_batch(run_id, metrics=_metrics(metrics, prefix="evaluation_"))


def mirror_aliases(
    settings: Settings, use_case: str, route: Route, *, challenger: int | None = None
) -> dict[str, int | None]:
    """Make the aliases champion, challenger and previous those of the routing row; return what was
    changed.

    `challenger` (see `waiting_challenger`) is shown while the routing row has none on its way.
    """
    wanted = {
        "champion": route.champion,
        "challenger": route.challenger or challenger,
        "previous": route.previous,
    }
    name, changed = name_of(use_case), {}
    with _mapped(settings) as client:
        try:
            model = client.get_registered_model(name)
        except _error() as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST" and not any(wanted.values()):
                return {}
            raise
        present = {alias: int(number) for alias, number in (model.aliases or {}).items()}
        for alias in ALIASES:
            target = wanted.get(alias)
            if present.get(alias) == target:
                continue
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


def aliases(settings: Settings, use_case: str) -> dict[str, int]:
    """Return the aliases as MLflow shows them."""
    with _mapped(settings) as client:
        try:
            model = client.get_registered_model(name_of(use_case))
        except _error() as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: int(number) for alias, number in (model.aliases or {}).items()}


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


def _find(client: Any, name: str, key: str, model_digest: str) -> Registered | None:
    found = client.search_model_versions(f"name = '{name}' and tags.`{PREFIX}partition` = '{key}'")
    same = [
        version for version in found if version.tags.get(f"{PREFIX}model_digest") == model_digest
    ]
    if not same:
        return None
    first = min(same, key=lambda version: int(version.version))
    # Killed between the version and the run's end.
    if client.get_run(first.run_id).info.status != "FINISHED":
        client.set_terminated(first.run_id, "FINISHED")
    return Registered(int(first.version), str(first.run_id), reused=True)


def _experiment(client: Any, settings: Settings, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        # A server knows where its artefacts lie, a database does not.
        served = settings.mlflow_address.startswith("http")
        folder = None if served else (settings.home / "mlartifacts" / name).as_uri()
        try:
            return str(client.create_experiment(name, folder))
        except _error() as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _ensure_model(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except _error() as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log(client: Any, run_id: str, training: TrainingRun) -> None:
    """Log parameters, metrics, manifest, bundle and an MLflow model with its signature."""
    from mlflow.entities import Param

    params = [Param(key, str(value)[:5900]) for key, value in training.params.items()]
    client.log_batch(run_id, metrics=_metrics(training.metrics), params=params)
    kind = kind_in((training.folder / SCHEMA).read_bytes())
    with tempfile.TemporaryDirectory() as scratch:
        kind.save_for_mlflow(training.folder, Path(scratch) / "model", digest=training.model_digest)
        manifest = Path(scratch) / "manifest.json"
        manifest.write_text(json.dumps(training.manifest, indent=1, default=str, sort_keys=True))
        client.log_artifacts(run_id, scratch)
    client.log_artifacts(run_id, str(training.folder), "bundle")


def _metrics(metrics: Mapping[str, float], prefix: str = "") -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(f"{prefix}{key}", value, 0, 0)
        for key, value in metrics.items()
        if value is not None and math.isfinite(value)
    ]


@contextmanager
def _mapped(settings: Settings) -> Iterator[Any]:
    """Give a client; foreign errors become Unavailable, without the address's password."""
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    address = settings.mlflow_address
    try:
        yield _client(address)
    except (_error(), SQLAlchemyError, RequestException, OSError) as error:
        reason = str(error).replace(address, _public(address)).splitlines()[0][:500]
        password = urlsplit(address).password
        reason = reason.replace(password, "***") if password else reason
        raise Unavailable(
            f"MLflow at {_public(address)} failed: {reason}. Start it or mend the setting, then "
            "run this again"
        ) from None


def _public(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.hostname else address


@lru_cache(maxsize=4)
def _client(address: str) -> Any:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    # Its default of 7 waits for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    import mlflow

    # MLflow's own use of SQLAlchemy is told as deprecated at the first query; a person here can do
    # nothing about it.
    warnings.filterwarnings("ignore", module=r"mlflow\.")
    with _first_use(address):
        client = mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def _first_use(address: str) -> Iterator[None]:
    """Let one process at a time make the tables of a database: MLflow's migrations race
    otherwise.
    """
    if address.startswith("postgresql"):
        with _advisory_lock(address):
            yield
        return
    if not address.startswith("sqlite:///"):
        yield
        return
    import fcntl

    database = Path(address.removeprefix("sqlite:///"))
    database.parent.mkdir(parents=True, exist_ok=True)
    with open(database.with_name(f".{database.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _advisory_lock(address: str) -> Iterator[None]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with create_engine(address, poolclass=NullPool).connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(hashtext('evergreen mlflow'))"))
        yield  # the lock goes with the connection


def _error() -> type[Any]:
    from mlflow.exceptions import MlflowException

    return cast(type[Any], MlflowException)
