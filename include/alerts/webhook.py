"""Send an alert to an address of HTTP: a few tries, each with a bound on the whole of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from include.alerts.alert import Alert
from include.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    import httpx
    from pydantic import SecretStr

log = logging.getLogger(__name__)

TRY_SECONDS = 5.0  # from the connection to the status of the answer, whatever drips in between
PAUSES = (1.0, 4.0)  # seconds between the tries
# Whoever says these may say otherwise in a moment; another refusal stays one.
_PASSING = (408, 425, 429)


def send(
    url: SecretStr,
    alert: Alert,
    *,
    seconds: float = TRY_SECONDS,
    pauses: Sequence[float] = PAUSES,
) -> int:
    """Send an alert and return the status of the answer; the address is a secret, and not told.

    Whoever answers 2xx has it. It may arrive twice, where an answer is lost: the header
    `Idempotency-Key` has its id.

    Raises:
        ConfigError: the address is none.
        Unavailable: nobody has taken it.
    """
    host = host_of(url)
    return asyncio.run(_send(url.get_secret_value(), host, alert, seconds, pauses))


def host_of(url: SecretStr) -> str:
    """Return the host of an address, which may be told.

    Raises:
        ConfigError: the address is none.
    """
    try:
        parts = urlsplit(url.get_secret_value())
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise ConfigError(
            "EVERGREEN_ALERT_URL is no address to send alerts to; it begins with https:// or "
            "http:// and names a host"
        )
    return host


async def _send(url: str, host: str, alert: Alert, seconds: float, pauses: Sequence[float]) -> int:
    import httpx

    why = ""
    # Proxies are the environment's, as for anything that leaves the house.
    async with httpx.AsyncClient(follow_redirects=False) as client:
        for number, pause in enumerate((*pauses, None), 1):
            try:
                async with asyncio.timeout(seconds):
                    status = await _try_once(client, url, alert)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
                # Its text may hold the address.
                why = f"no answer within {seconds:g} s" if _is_late(error) else type(error).__name__
            else:
                if 200 <= status < 300:
                    return status
                why = f"it answers {status}"
                if status < 500 and status not in _PASSING:
                    break
            log.warning("alert %s, try %d at %s: %s", alert.id, number, host, why)
            if pause is not None:
                await asyncio.sleep(pause)
    raise Unavailable(
        f"{host} has not taken the alert {alert.id}: {why}; mend it, or EVERGREEN_ALERT_URL, then "
        f"run `evergreen heal {alert.use_case}`"
    )


async def _try_once(client: httpx.AsyncClient, url: str, alert: Alert) -> int:
    """Return the status of one try; of the answer's body nothing is read."""
    headers = {"idempotency-key": alert.id}
    async with client.stream("POST", url, json=alert.plain(), headers=headers) as answer:
        return int(answer.status_code)


def _is_late(error: Exception) -> bool:
    import httpx

    return isinstance(error, (TimeoutError, httpx.TimeoutException))
