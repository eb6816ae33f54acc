"""What a run is: of which use case and partition, and on whose behalf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.config.settings import settings
from include.config.use_case_file import find
from include.errors import ConfigError
from include.point_in_time import partitions

if TYPE_CHECKING:
    from airflow.sdk import Context


def use_case_of(dag_id: str) -> str:
    """Return the use case of a DAG."""
    return dag_id.partition("__")[0]


def run_key(use_case: str, context: Context) -> str:
    """Return the partition of a run: its own key, else the form's date, else the newest that was
    complete when it began.

    Raises: ConfigError: the key is none of this use case, or the form contradicts it, or nothing is
        complete yet.
    """
    run = context["dag_run"]
    chosen = (context.get("params") or {}).get("partition")
    if run.partition_key and chosen and run.partition_key != chosen:
        raise ConfigError(
            f"the run's partition key is {run.partition_key}, the form says {chosen}; give only "
            "one of them"
        )
    described = find(use_case, settings().usecase_dirs)
    key = run.partition_key or chosen or partitions.newest_complete(described, run.run_after)
    if key is None:
        raise ConfigError(
            f"{use_case} has no complete partition yet; its history begins on "
            f"{described.history.first}"
        )
    return partitions.period(described, str(key)).key


def actor(context: Context) -> str:
    """Return who started the run, for the audit log."""
    run = context["dag_run"]
    return f"airflow:{run.triggering_user_name or getattr(run.run_type, 'value', run.run_type)}"


def owner_of(context: Context) -> str:
    """Return which attempt of which task holds a lease: a retry of it takes the lease over."""
    run, instance = context["dag_run"], context["ti"]
    return f"airflow:{run.dag_id}/{run.run_id}/{instance.task_id}"
