"""How Celery's workers and the scheduler that hands them tasks are configured.

Airflow starts again by itself what a dead worker had: a task that nobody began is sent anew after
`task_queued_timeout`, one that was running when its heartbeat has been missing for
`task_instance_heartbeat_timeout`. So what Redis delivers a second time (after a worker's death, or
after the broker was away) is dropped: it would run beside the attempt that still lives, or, with a
token that has run out, make the executor report a running task as failed.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
from celery.exceptions import Ignore
from celery.signals import heartbeat_sent, worker_shutdown

from include.config.settings import settings
from include.orchestration.queues import alive_file

log = logging.getLogger(__name__)

RESULT_SECONDS = 86_400  # for so long the outcome of a task is kept in Redis


def drop_second_delivery(task: Any, task_id: str, args: Any, kwargs: Any) -> None:
    """Refuse a message that was delivered before; Celery calls it before each task.

    Raises:
        Ignore: it was; nothing is run, and nothing is told to the scheduler.
    """
    if (task.request.delivery_info or {}).get("redelivered"):
        log.warning("%s was delivered before: Airflow sends anew what is lost", task_id)
        raise Ignore


def note_alive(**_: Any) -> None:
    """Leave a sign that this worker reaches its broker: every two seconds while it does."""
    path = alive_file(settings())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def note_end(**_: Any) -> None:
    """Take the sign away: this worker takes no more tasks."""
    alive_file(settings()).unlink(missing_ok=True)


heartbeat_sent.connect(note_alive)
worker_shutdown.connect(note_end)

CONFIGURATION: dict[str, Any] = {
    **DEFAULT_CELERY_CONFIG,
    # A worker takes no task that it cannot begin: it would wait there while another one is idle.
    "worker_prefetch_multiplier": 1,
    "task_acks_late": True,
    "task_annotations": {"execute_workload": {"before_start": drop_second_delivery}},
    "broker_transport_options": {
        **DEFAULT_CELERY_CONFIG["broker_transport_options"],
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
    "result_expires": RESULT_SECONDS,
    # For ever: a broker that is away for an hour must find its workers again.
    "broker_connection_max_retries": None,
    # What runs goes on while the broker is away: it reports to Airflow's API.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}
