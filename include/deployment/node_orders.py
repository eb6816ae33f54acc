"""Ask a serving node to take a model back by itself, where the records cannot be reached."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from include.config.settings import Settings
from include.deployment.rollback import Order
from include.errors import Conflict, EvergreenError, Unavailable

SECONDS = 10.0


def take_back_on_node(settings: Settings, use_case: str, order: Order) -> dict[str, Any]:
    """Have the node of these settings carry out an order, and return its answer.

    It needs the node's token, which lies in the home folder or in the environment.

    Raises:
        Unavailable: the node does not answer, or cannot do it either.
        Conflict: there is nothing to go back to on it.
        EvergreenError: it refuses.
    """
    body = {
        "reason": order.reason,
        "version": order.version,
        "actor": order.actor,
        "request_id": order.request_id,
    }
    token = settings.node_secret.get_secret_value()
    try:
        answer = httpx.post(
            f"{settings.node_url}/v1/{quote(use_case, safe='')}/rollback",
            json=body,
            headers={"authorization": f"Bearer {token}"},
            timeout=SECONDS,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise Unavailable(
            f"{use_case}: the node at {settings.node_url} does not answer either ({error}); ask "
            "each node that serves by its own route, POST /v1/USE_CASE/rollback"
        ) from error
    if answer.is_success:
        told: dict[str, Any] = answer.json()
        return told
    kinds: dict[int, type[EvergreenError]] = {409: Conflict, 503: Unavailable}
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"status {answer.status_code}"
    kind = kinds.get(answer.status_code, EvergreenError)
    raise kind(f"{use_case}: the node at {settings.node_url} refuses: {message}")
