"""Airflow's Celery executor, for a broker that may be away for a while.

Airflow's own lets the scheduler die of the first question that Redis does not answer, and fails
every task that it cannot send. This one asks and sends again: what was sent runs on meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from airflow.providers.celery.executors.celery_executor import CeleryExecutor
from airflow.sdk.exceptions import AirflowTaskTimeout
from kombu.exceptions import OperationalError

AWAY = (redis.ConnectionError, redis.TimeoutError, OperationalError, ConnectionError, TimeoutError)


class PatientCeleryExecutor(CeleryExecutor):
    """Celery executor that waits for its broker."""

    _away = False

    def sync(self) -> None:
        """Ask for the states of the tasks that were sent, or leave it to the next turn."""
        try:
            super().sync()
        except AWAY as error:
            # Once: a scheduler asks twice a second.
            if not self._away:
                self.log.warning("the broker does not answer (%s); asking again", error)
            self._away = True
        else:
            self._away = False

    def _send_workloads_to_celery(self, workload_tuples_to_send: Sequence[Any]) -> Any:
        """Send tasks; those that could not be sent stay in the queue, as after a time-out."""
        sent = super()._send_workloads_to_celery(workload_tuples_to_send)
        for _, _, result in sent:
            error = getattr(result, "exception", None)
            if isinstance(error, AWAY):
                result.exception = AirflowTaskTimeout(f"the broker does not answer: {error}")
        return sent
