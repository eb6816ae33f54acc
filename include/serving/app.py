"""The node's ASGI application: routes, authorisation, and the prediction path.

Only what `state` holds is served; the reconciler replaces it. Everything here runs on the event
loop.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
import time
from collections.abc import Callable

import msgspec
from starlette.types import Message, Receive, Scope, Send

from include.errors import ConfigError, Conflict, EvergreenError, Unavailable
from include.predictions.log import PredictionLog
from include.serving import predict
from include.serving.http import (
    Disconnected,
    Refusal,
    answer,
    header,
    read_json_body,
    refuse,
    wrong_method,
)
from include.serving.http_routes import Endpoints, Reload, Rollback
from include.serving.prometheus import Metrics
from include.serving.serving_table import ServingTable
from include.serving.snapshot import Loaded, Served

log = logging.getLogger(__name__)

# What may be put into a header and a log as it is.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}\Z")
_encode = msgspec.json.Encoder().encode


class App:
    """Answers HTTP requests from a table of `Served` snapshots.

    Predict is answered here, over bare ASGI; Starlette's router costs as much as the model does.
    Everything else goes to `http_routes`.
    """

    def __init__(
        self,
        *,
        token: str,
        open_log: Callable[[str], PredictionLog],
        rollback: Rollback,
        reload: Reload,
        hosts: frozenset[str] | None = None,
    ) -> None:
        """Build it.

        `open_log` opens a use case's prediction log; `hosts` are the names that Host may say (None:
        any).
        """
        self.table = ServingTable()
        self.metrics = Metrics()
        endpoints = Endpoints(
            self.table, self.metrics, token=token, rollback=rollback, reload=reload
        )
        self._router = endpoints.router()
        self._hosts = hosts
        self._open_log, self._logs = open_log, dict[str, PredictionLog]()
        self._horizons: dict[str, predict.Horizon] = {}
        self._prefix, self._count = secrets.token_hex(6), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise Unavailable(f"{scope['type']} is not served here")
        request_id = self._request_id(scope)
        use_case = route = ""  # what the answer is counted under
        try:
            self._check_host(scope)
            parts = scope["path"].split("/")  # "", "v1", the use case, "predict"
            if len(parts) == 4 and parts[3] == "predict" and parts[1] == "v1":
                self.table.find(parts[2])
                use_case, route = parts[2], "predict"
                status = await self._predict(use_case, scope, receive, send, request_id)
            else:
                status = await self._other(scope, receive, send, request_id)
        except Disconnected:
            status = 499
        except EvergreenError as error:
            refusal = _as_refusal(error)
            status = refusal.status
            await refuse(refusal, receive, send, request_id)
        if not route:
            use_case, route = self._labels(scope)
        self.metrics.count_answer(use_case, route, status)

    def install(self, served: Served) -> None:
        """Serve a snapshot from the next request on."""
        name = served.use_case.name
        present = self.table.served.get(name)
        if present is None or present.use_case is not served.use_case:
            self._horizons[name] = predict.Horizon(served.use_case)
        self.table.served[name] = served
        models = {"champion": served.champion, "previous": served.previous}
        versions = {role: model.version for role, model in models.items() if model}
        self.metrics.show_served(name, served.generation, versions)

    def forget(self, use_case: str) -> None:
        """Serve a use case no more."""
        self.table.served.pop(use_case, None)
        self.metrics.hide_served(use_case)

    @property
    def logs(self) -> list[PredictionLog]:
        """The prediction logs that are open."""
        return list(self._logs.values())

    async def _other(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Answer what is not predict and return the status; each answer names its request."""
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += [
                    (b"x-request-id", request_id.encode("ascii")),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self._router(scope, receive, send_with_id)
        return status

    def _labels(self, scope: Scope) -> tuple[str, str]:
        """Return the use case and route that a request's answer is counted under.

        Only names that are served count: whoever tries out paths would otherwise make series
        without end.
        """
        route = scope.get("route")
        use_case = scope.get("path_params", {}).get("use_case", "")
        if route is None or (use_case and use_case not in self.table.served):
            return "", ""
        return use_case, route.name

    async def _predict(
        self, use_case: str, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> int:
        if scope["method"] != "POST":
            raise wrong_method(scope, "POST")
        started, clock = time.time_ns(), time.perf_counter()
        body = await read_json_body(scope, receive)
        served = self.table.served.get(use_case)
        if served is None:
            raise Refusal(404, "unknown_use_case", f"use case {use_case!r} is not served any more")
        asked = predict.check(predict.parse(body), served)
        model, arm, features, score = await self._score(asked, served)
        line, reply = predict.record(
            request_id, asked, served, model, arm, features, score, started
        )
        self._log(use_case).append(line)
        await answer(send, 200, _encode(reply), request_id.encode("ascii"))
        self.metrics.observe_duration(use_case, time.perf_counter() - clock)
        return 200

    async def _score(
        self, asked: predict.Asked, served: Served
    ) -> tuple[Loaded, str, predict.Features, float]:
        """Ask the champion; if it gives no answer, ask the one before it."""
        champion, previous, name = served.champion, served.previous, served.use_case.name
        if champion is None:
            why = f" ({served.problems[0]})" if served.problems else ""
            raise Refusal(
                503,
                "no_model",
                f"{name} has no model to answer yet{why}; run `evergreen status {name}`",
                headers=[(b"retry-after", b"10")],
            )
        try:
            features, score = await self._ask(asked, served, champion)
            return champion, "champion", features, score
        except Unavailable as error:
            self.metrics.count_event(name, "champion_failed")
            if previous is None or champion is previous:
                raise
            log.warning("%s: %s; model %d answers instead", name, error, previous.version)
        features, score = await self._ask(asked, served, previous)
        self.metrics.count_event(name, "fallback")
        features.flags.append("fallback")
        return previous, "fallback", features, score

    async def _ask(
        self, asked: predict.Asked, served: Served, model: Loaded
    ) -> tuple[predict.Features, float]:
        features = predict.features_of(asked, served, model, self._horizons[served.use_case.name])
        if model.remote is None:
            return features, predict.score_sync(model, features.row)
        lacking = [name for name in model.remote.features if name not in features.row]
        if lacking:
            raise Refusal(
                422,
                "invalid",
                f"feature {lacking[0]!r} is missing; send null",
                field=f"features.{lacking[0]}",
            )
        score = await model.remote.ask({name: features.row[name] for name in model.remote.features})
        if not math.isfinite(score):
            raise Unavailable(f"model {model.version} answers {score}, which is no probability")
        return features, score

    # edges

    def _request_id(self, scope: Scope) -> str:
        given = header(scope, b"x-request-id")
        if given is not None and _REQUEST_ID.match(given):
            return given.decode("ascii")
        self._count += 1
        return f"{self._prefix}-{self._count:x}"

    def _check_host(self, scope: Scope) -> None:
        """Refuse names that are not ours: a page on the web could otherwise reach a node on this
        machine by its own name.
        """
        if self._hosts is None:
            return
        host = (header(scope, b"host") or b"").decode("latin-1").lower()
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        if name not in self._hosts:
            raise Refusal(421, "wrong_host", f"host {host[:80]!r} is not served here", linger=True)

    def _log(self, use_case: str) -> PredictionLog:
        found = self._logs.get(use_case)
        if found is None:
            found = self._logs[use_case] = self._open_log(use_case)
        return found


def _as_refusal(error: EvergreenError) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Conflict):
        return Refusal(409, "conflict", str(error))
    if isinstance(error, ConfigError):
        return Refusal(422, "invalid", str(error))
    return Refusal(503, "unavailable", str(error), headers=[(b"retry-after", b"5")])
