"""The node's routes beside predict: pages for people and programs, and what changes state.

An endpoint raises a `Refusal` (or another of our errors), which `App` answers as it does for
predict. All of them are coroutines: Starlette would run a plain function in a thread, where what
is served may change under it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from include.clock import utc_now
from include.config.tokens import Role
from include.deployment.rollback import Order
from include.serving import docs_page, openapi, releases_page
from include.serving.access import Access
from include.serving.batch import BatchAnswer
from include.serving.http import Refusal, read_json_body, wrong_method
from include.serving.prometheus import Metrics
from include.serving.serving_table import ServingTable

MAX_ACTOR, MAX_REASON = 80, 1000  # characters that are recorded
# Returns whether it is served already, and what to answer.
Rollback = Callable[[str, Order], Awaitable[tuple[bool, Mapping[str, Any]]]]
Reload = Callable[[str], Awaitable[Mapping[str, Any]]]
# The use case, the body, the node's id of the request and the caller's.
Batch = Callable[[str, bytes, tuple[str, str | None]], Awaitable[BatchAnswer]]
_encode = msgspec.json.Encoder().encode


class RollbackRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a rollback: why, and what is taken back, by its version or the generation.

    `claim` is the caller's word on who it is, beside its token's name (`actor` was its old name);
    `request_id` (else the header x-request-id) makes two orders one.
    """

    reason: str
    version: int | None = None
    generation: int | None = None
    claim: str = ""
    actor: str = ""
    request_id: str = ""


class NodeRoute(Route):
    """A route with one method and one role, which refuses in the node's form.

    The token comes first: without one nobody learns which use cases there are. The use case is
    looked up before the method, as it is for predict: who misspells one is told so.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        of: Endpoints,
        role: Role | None,
        method: str = "GET",
    ) -> None:
        """Build it; `role` is what its callers need, None where it needs no token."""
        super().__init__(path, endpoint, methods=[method], name=path.rpartition("/")[2])
        # `$` fits before a last line feed too: /rollback%0a would be a page that no balancer's rule
        # on paths names.
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")
        self.role, self.method, self._of = role, method, of

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request whose path fits, whatever its method."""
        scope["caller"] = self._of.access.require(scope, self.role)
        use_case = scope["path_params"].get("use_case", "")
        if use_case:
            self._of.table.find(use_case)
        if self.methods is not None and scope["method"] not in self.methods:
            raise wrong_method(scope, self.method)
        await self.app(scope, receive, send)


class Endpoints:
    """What the routes answer; `access` tells who may ask for what."""

    def __init__(
        self,
        table: ServingTable,
        metrics: Metrics,
        *,
        access: Access,
        rollback: Rollback,
        reload: Reload,
        batch: Batch,
    ) -> None:
        self.table, self.access, self._metrics = table, access, metrics
        self._rollback, self._reload, self._batch = rollback, reload, batch

    def router(self) -> Router:
        """Return the ASGI application of these routes; another path is refused with 404."""
        return Router(self.routes(), redirect_slashes=False, default=_refuse_path)

    def routes(self) -> list[NodeRoute]:
        """Return the routes, each with its method and the role that it needs."""
        return [
            NodeRoute("/live", self.live, self, None),
            NodeRoute("/ready", self.ready, self, None),
            NodeRoute("/ready/{use_case}", self.ready_for, self, None),
            NodeRoute("/health", self.health, self, "read"),
            NodeRoute("/metrics", self.metrics, self, "read"),
            NodeRoute("/openapi.json", self.openapi, self, "read"),
            NodeRoute("/docs", self.docs, self, "read"),
            NodeRoute("/releases", self.releases, self, "read"),
            NodeRoute("/docs/try", self.try_page, self, "read"),
            NodeRoute("/docs/assets/{name}", self.asset, self, "read"),
            NodeRoute("/v1/{use_case}/model", self.model, self, "read"),
            NodeRoute("/v1/{use_case}/batch", self.batch, self, "predict", "POST"),
            NodeRoute("/v1/{use_case}/reload", self.reload, self, "operate", "POST"),
            NodeRoute("/v1/{use_case}/rollback", self.rollback, self, "operate", "POST"),
        ]

    async def live(self, request: Request) -> Response:
        """Say that the process answers; who gets no answer starts it again."""
        return _json({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """Say whether requests should be sent here: not while the node starts or drains."""
        status = "draining" if self.table.draining else self.table.status
        if status in ("starting", "draining"):
            raise Refusal(503, status, f"the node is {status}", headers=[(b"retry-after", b"1")])
        return _json({"status": "ready"})

    async def ready_for(self, request: Request) -> Response:
        """Say whether requests of a use case should be sent here: only if a model answers."""
        await self.ready(request)
        name = _use_case(request)
        served = self.table.find(name)
        if served.answering is None:
            raise Refusal(503, "no_model", f"{name} has no model to answer yet")
        return _json({"status": "ready", "model_version": served.answering.version})

    async def health(self, request: Request) -> Response:
        """Say whether the node lives, and which model answers for each use case."""
        use_cases = {
            name: {
                "model_version": served.answering.version if served.answering else None,
                "arm": "champion" if served.champion else "fallback" if served.answering else None,
                "epoch": served.epoch,
                "generation": served.generation,
                "problems": [*served.problems, *filter(None, [self.table.disk.get(name)])],
                "roles": self.table.roles(name),
                **({} if served.release is None else {"release": served.release.describe()}),
                **({"shadow": told} if (told := self.table.shadows(name)) else {}),
            }
            for name, served in sorted(self.table.served.items())
        }
        return _json(
            {
                "status": self.table.status,
                "records": {"reachable": self.table.healthy, "rows_from": self.table.source},
                "tokens": self.access.problem or "ok",
                "use_cases": use_cases,
                **({"restart": self.table.restart} if self.table.restart else {}),
            }
        )

    async def metrics(self, request: Request) -> Response:
        """Give the node's numbers in the format that the scraper accepts."""
        text, media_type = self._metrics.render(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": media_type})

    async def openapi(self, request: Request) -> Response:
        """Give the OpenAPI document."""
        return _json(openapi.document(self.table.served, self.access.free))

    async def docs(self, request: Request) -> Response:
        """Show people what can be asked and how."""
        page = docs_page.render(self.table.served, self.access.free)
        return HTMLResponse(page, headers=docs_page.SECURITY)

    async def releases(self, request: Request) -> Response:
        """Show people how releases stand: what the records say, and what this node does."""
        views = await self.table.look_at_releases(sorted(self.table.served))
        page = releases_page.render(self.table.served, views, utc_now())
        return HTMLResponse(page, headers=docs_page.SECURITY)

    async def try_page(self, request: Request) -> Response:
        """Show people a page on which requests can be tried."""
        return HTMLResponse(docs_page.try_page(), headers=docs_page.TRY_SECURITY)

    async def asset(self, request: Request) -> Response:
        """Give a file that the page to try requests loads."""
        content, media_type = docs_page.asset(request.path_params["name"])
        headers = {"content-type": media_type, "cache-control": "private, max-age=3600"}
        return Response(content, headers=headers)

    async def model(self, request: Request) -> Response:
        """Describe the models that serve a use case."""
        return _json(openapi.describe_served(self.table.find(_use_case(request))))

    async def batch(self, request: Request) -> Response:
        """Answer many rows, in order, one result or error a row."""
        body = await read_json_body(request.scope, request.receive)
        return _json(await self._batch(_use_case(request), body, request.scope["ids"]))

    async def reload(self, request: Request) -> Response:
        """Look at a use case's records again, and say what serves after that."""
        return _json(await self._reload(_use_case(request)))

    async def rollback(self, request: Request) -> Response:
        """Serve the previous model again, for a reason that is recorded."""
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
                actor=request.scope["caller"],
                claim=(order.claim or order.actor)[:MAX_ACTOR],
                reason=order.reason[:MAX_REASON],
                version=order.version,
                generation=order.generation,
                request_id=_recorded_id(given),
            ),
        )
        # 202: it is decided, and another model still answers until the right one is in memory.
        return _json(answered, 200 if settled else 202)


async def _refuse_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a path that no route has."""
    raise Refusal(404, "not_found", f"no page {scope['path'][:80]!r}; see /docs", linger=True)


def _recorded_id(given: str) -> str:
    """Return a caller's id as it is recorded; a long one by its digest.

    Cut off, two orders of the same beginning would be one, and the second would do nothing.
    """
    return given if len(given) <= MAX_ACTOR else hashlib.sha256(given.encode()).hexdigest()


def _use_case(request: Request) -> str:
    return str(request.path_params["use_case"])


def _no_reason(message: str) -> Refusal:
    return Refusal(422, "invalid", message, field="reason")


def _json(value: object, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")
