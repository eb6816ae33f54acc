"""The node's routes beside predict: pages for people and programs, and what changes state.

An endpoint raises a `Refusal` (or another of our errors), which `App` answers as it does for
predict. All of them are coroutines: Starlette would run a plain function in a thread, where what
is served may change under it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from include.deployment.rollback import Order
from include.serving import docs_page, openapi
from include.serving.http import Refusal, read_json_body, wrong_method
from include.serving.prometheus import Metrics
from include.serving.serving_table import ServingTable

log = logging.getLogger(__name__)

MAX_ACTOR, MAX_REASON = 80, 1000  # characters that are recorded
ACTOR = "node token"  # who was recognised; who it says that it is stands beside it
# Returns whether it is served already, and what to answer.
Rollback = Callable[[str, Order], Awaitable[tuple[bool, Mapping[str, Any]]]]
Reload = Callable[[str], Awaitable[Mapping[str, Any]]]
_encode = msgspec.json.Encoder().encode


class RollbackRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a rollback: why, and what is taken back, by its version or the generation.

    `actor` is the caller's word; `request_id` (else the header x-request-id) makes two orders one.
    """

    reason: str
    version: int | None = None
    generation: int | None = None
    actor: str = ""
    request_id: str = ""


class NodeRoute(Route):
    """A route with one method, which refuses in the node's form.

    The use case is looked up before the method, as it is for predict: who misspells one is told so.
    """

    def __init__(
        self, path: str, endpoint: Callable[..., Any], table: ServingTable, method: str = "GET"
    ) -> None:
        super().__init__(path, endpoint, methods=[method], name=path.rpartition("/")[2])
        self._method, self._table = method, table

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose path fits, whatever its method."""
        use_case = scope["path_params"].get("use_case", "")
        if use_case:
            self._table.find(use_case)
        if self.methods is not None and scope["method"] not in self.methods:
            raise wrong_method(scope, self._method)
        await self.app(scope, receive, send)


class Endpoints:
    """What the routes answer; `token` is what changes of state need."""

    def __init__(
        self,
        table: ServingTable,
        metrics: Metrics,
        *,
        token: str,
        rollback: Rollback,
        reload: Reload,
    ) -> None:
        self._table, self._metrics = table, metrics
        self._token_digest = hashlib.sha256(token.encode()).digest()
        self._rollback, self._reload = rollback, reload

    def router(self) -> Router:
        """Return the ASGI application of these routes; another path is refused with 404."""
        routes = [
            NodeRoute("/live", self.live, self._table),
            NodeRoute("/ready", self.ready, self._table),
            NodeRoute("/ready/{use_case}", self.ready_for, self._table),
            NodeRoute("/health", self.health, self._table),
            NodeRoute("/metrics", self.metrics, self._table),
            NodeRoute("/openapi.json", self.openapi, self._table),
            NodeRoute("/docs", self.docs, self._table),
            NodeRoute("/v1/{use_case}/model", self.model, self._table),
            NodeRoute("/v1/{use_case}/reload", self.reload, self._table, "POST"),
            NodeRoute("/v1/{use_case}/rollback", self.rollback, self._table, "POST"),
        ]
        return Router(routes, redirect_slashes=False, default=_refuse_path)

    async def live(self, request: Request) -> Response:
        """Say that the process answers; who gets no answer starts it again."""
        return _json({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """Say whether requests should be sent here: not while the node starts or drains."""
        status = "draining" if self._table.draining else self._table.status
        if status in ("starting", "draining"):
            raise Refusal(503, status, f"the node is {status}", headers=[(b"retry-after", b"1")])
        return _json({"status": "ready"})

    async def ready_for(self, request: Request) -> Response:
        """Say whether requests of a use case should be sent here: only if a model answers."""
        await self.ready(request)
        name = _use_case(request)
        served = self._table.find(name)
        if served.answering is None:
            raise Refusal(503, "no_model", f"{name} has no model to answer yet")
        return _json({"status": "ready", "model_version": served.answering.version})

    async def health(self, request: Request) -> Response:
        """Say whether the node lives, and which model answers for each use case."""
        use_cases = {
            name: {
                "model_version": served.answering.version if served.answering else None,
                "arm": "champion" if served.champion else "fallback" if served.answering else None,
                "generation": served.generation,
                "problems": [*served.problems, *filter(None, [self._table.disk.get(name)])],
                "roles": self._table.roles(name),
            }
            for name, served in sorted(self._table.served.items())
        }
        return _json(
            {
                "status": self._table.status,
                "records": {"reachable": self._table.healthy, "rows_from": self._table.source},
                "use_cases": use_cases,
            }
        )

    async def metrics(self, request: Request) -> Response:
        """Give the node's numbers in the format that the scraper accepts."""
        text, media_type = self._metrics.render(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": media_type})

    async def openapi(self, request: Request) -> Response:
        """Give the OpenAPI document."""
        return _json(openapi.document(self._table.served))

    async def docs(self, request: Request) -> Response:
        """Show people what can be asked and how."""
        return HTMLResponse(docs_page.render(self._table.served), headers=docs_page.SECURITY)

    async def model(self, request: Request) -> Response:
        """Describe the models that serve a use case."""
        return _json(openapi.describe_served(self._table.find(_use_case(request))))

    async def reload(self, request: Request) -> Response:
        """Look at a use case's records again, and say what serves after that."""
        self._authorise(request)
        return _json(await self._reload(_use_case(request)))

    async def rollback(self, request: Request) -> Response:
        """Serve the previous model again, for a reason that is recorded."""
        self._authorise(request)
        body = await read_json_body(request.scope, request.receive)
        try:
            order = msgspec.json.decode(body, type=RollbackRequest)
        except msgspec.ValidationError as error:
            raise _no_reason(f"{error}; a rollback needs its reason") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refusal(400, "bad_json", f"the body is no valid JSON: {error}") from None
        if not order.reason.strip():
            raise _no_reason("a rollback needs its reason")
        if order.version is None and order.generation is None:
            raise Refusal(
                422,
                "invalid",
                "name what is taken back: the version that serves, or the generation; "
                "GET /health says both",
                field="version",
            )
        given = order.request_id or request.headers.get("x-request-id", "")
        settled, answered = await self._rollback(
            _use_case(request),
            Order(
                actor=ACTOR,
                claim=order.actor[:MAX_ACTOR],
                reason=order.reason[:MAX_REASON],
                version=order.version,
                generation=order.generation,
                request_id=given[:MAX_ACTOR],
            ),
        )
        # 202: it is decided, and another model still answers until the right one is in memory.
        return _json(answered, 200 if settled else 202)

    def _authorise(self, request: Request) -> None:
        """Refuse who does not send the token.

        Digests are compared, in constant time: how long it takes tells neither the token's length
        nor how much of it was right.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(token.strip().encode("latin-1")).digest()
        if hmac.compare_digest(digest, self._token_digest) and scheme.lower() == "bearer":
            return
        use_case, route = _use_case(request), request.scope["route"].name
        client = request.client.host if request.client else "unknown"
        log.warning("%s: %s from %s without a valid token was refused", use_case, route, client)
        self._metrics.count_event(use_case, "unauthorised")
        raise Refusal(
            401,
            "unauthorised",
            "this changes state: send the node's token as `Authorization: Bearer ...`",
            headers=[(b"www-authenticate", b"Bearer")],
            linger=True,
        )


async def _refuse_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a path that no route has."""
    raise Refusal(404, "not_found", f"no page {scope['path'][:80]!r}; see /docs", linger=True)


def _use_case(request: Request) -> str:
    return str(request.path_params["use_case"])


def _no_reason(message: str) -> Refusal:
    return Refusal(422, "invalid", message, field="reason")


def _json(value: object, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")
