"""Ask serving nodes directly: to take a model back where the records are away, and what they serve.

Every node that the settings name is asked at once: one that does not answer holds up no other.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from include.config.settings import Settings
from include.deployment.rollback import Order
from include.errors import Conflict, EvergreenError, Unavailable

SECONDS = 10.0
LOOK_SECONDS = 2.0  # for an answer that only a person waits for, and that changes nothing
MOST_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Told:
    """What a node answered; `problem` is why it did not, and `answer` is empty then."""

    url: str
    answer: dict[str, Any]
    problem: EvergreenError | None = None


def take_back_on_nodes(settings: Settings, use_case: str, order: Order) -> list[Told]:
    """Have all nodes of these settings carry out an order, and return what each came to.

    It needs the nodes' token, which lies in the home folder or in the environment. The order's
    request id makes it one rollback, however many nodes note it.

    Raises:
        Unavailable: no node has done it, and one at least does not answer or cannot.
        Conflict: none has, since there is nothing to go back to on them.
        EvergreenError: none has: they refuse.
    """
    body = {
        "reason": order.reason,
        "version": order.version,
        "actor": order.actor,
        "request_id": order.request_id,
    }
    path = f"/v1/{quote(use_case, safe='')}/rollback"

    def ask(url: str) -> dict[str, Any]:
        return _ask(settings, "POST", f"{url}{path}", use_case, body=body)

    told = _ask_each(settings, ask)
    problems = [one.problem for one in told if one.problem is not None]
    if len(problems) == len(told):
        kinds = {type(problem) for problem in problems}
        kind = kinds.pop() if len(kinds) == 1 else Unavailable
        raise kind("; ".join(dict.fromkeys(map(str, problems))))
    return told


def look_at_nodes(settings: Settings, use_case: str) -> list[Told]:
    """Return what each node of these settings says of a use case, as its health page has it."""

    def ask(url: str) -> dict[str, Any]:
        health = _ask(settings, "GET", f"{url}/health", use_case, seconds=LOOK_SECONDS)
        use_cases = health.get("use_cases")
        found = use_cases.get(use_case) if isinstance(use_cases, dict) else None
        return found if isinstance(found, dict) else {}

    return _ask_each(settings, ask)


def _ask_each(settings: Settings, ask: Callable[[str], dict[str, Any]]) -> list[Told]:
    def told(url: str) -> Told:
        try:
            return Told(url, ask(url))
        except EvergreenError as problem:
            return Told(url, {}, problem)

    with ThreadPoolExecutor(MOST_AT_ONCE) as threads:
        return list(threads.map(told, settings.node_addresses))


def _ask(
    settings: Settings,
    method: str,
    url: str,
    use_case: str,
    *,
    body: dict[str, Any] | None = None,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    token = settings.node_secret.get_secret_value()
    node = url.partition("/v1/")[0].removesuffix("/health")
    try:
        answer = httpx.request(
            method,
            url,
            json=body,
            headers={"authorization": f"Bearer {token}"},
            timeout=seconds,
            trust_env=False,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(
            f"{use_case}: the node at {node} does not answer ({error}); start it, correct "
            "EVERGREEN_NODE_URLS, or ask it by its own route, POST /v1/USE_CASE/rollback"
        ) from error
    if answer.is_success:
        return _object(answer, f"{use_case}: what answers at {node}")
    kinds: dict[int, type[EvergreenError]] = {409: Conflict, 503: Unavailable}
    try:
        message = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"status {answer.status_code}"
    kind = kinds.get(answer.status_code, EvergreenError)
    raise kind(f"{use_case}: the node at {node} refuses: {message}")


def _object(answer: httpx.Response, what: str) -> dict[str, Any]:
    """Return what a node says; what is no object comes of another program, or of a proxy.

    Raises:
        Unavailable: it is none.
    """
    try:
        told = answer.json()
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Unavailable(f"{what} is no node of Evergreen; correct EVERGREEN_NODE_URLS")
    return told
