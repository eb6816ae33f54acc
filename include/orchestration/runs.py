"""Read a DAG run: of which use case and partition it is, and on whose behalf."""

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
    """Return the partition key of a run.

    It is the run's own, else the form's date, else the newest that was complete when the run began.

    Raises:
        ConfigError: the key is none of this use case, or the form contradicts it, or nothing is
            complete yet.
    """
    run = context["dag_run"]
    chosen = (context.get("params") or {}).get("partition")
    if run.partition_key and chosen and run.partition_key != chosen:
        raise ConfigError(
            f"the run's partition key is {run.partition_key}, the form says {chosen}; give only "
            "one of them"
        )
    definition = find(use_case, settings().usecase_dirs)
    key = run.partition_key or chosen or partitions.newest_complete(definition, run.run_after)
    if key is None:
        raise ConfigError(
            f"{use_case} has no complete partition yet; its history begins on "
            f"{definition.history.first}"
        )
    return partitions.period(definition, str(key)).key


def actor_of(context: Context) -> str:
    """Return who started the run, for the audit log."""
    run = context["dag_run"]
    return f"airflow:{run.triggering_user_name or getattr(run.run_type, 'value', run.run_type)}"


def owner_of(context: Context) -> str:
    """Return which attempt of which task holds a lease: a retry of it takes the lease over."""
    run, instance = context["dag_run"], context["ti"]
    return f"airflow:{run.dag_id}/{run.run_id}/{instance.task_id}"
