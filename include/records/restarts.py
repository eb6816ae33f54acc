"""Call again what a database's restart has cut off, for as long as the settings say.

For libraries' own connections; `Database` does the same for ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception,
    stop_before_delay,
    wait_random_exponential,
)

from include.records.failures import is_transient

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_PAUSES = wait_random_exponential(multiplier=0.5, max=10.0)


class HasPatience(Protocol):
    """What says for how many seconds a database that is away is waited for."""

    @property
    def database_patience(self) -> float: ...


S = TypeVar("S", bound=HasPatience)


def through_restarts(act: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Return a function that is called again while its database is away, for a while.

    For what may be done twice. The while is `database_patience` of the settings, which it is given
    first.
    """

    @wraps(act)
    def call(settings: S, /, *given: P.args, **named: P.kwargs) -> T:
        patient = Retrying(
            retry=retry_if_exception(may_pass),
            stop=stop_before_delay(settings.database_patience),
            wait=_PAUSES,
            before_sleep=before_sleep_log(log, logging.WARNING),
            reraise=True,
        )
        answer: T = patient(act, settings, *given, **named)
        return answer

    return call


def may_pass(error: BaseException | None) -> bool:
    """Tell whether a connection was lost; libraries' errors and ours hold what they come from."""
    while error is not None:
        if is_transient(error):
            return True
        error = error.__cause__ or error.__context__
    return False
