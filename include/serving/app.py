"""The node's ASGI application: routes, authorisation, and the prediction path.

Only what `state` holds is served; the reconciler replaces it. Everything here runs on the event
loop.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from include.errors import ConfigError, Conflict, EvergreenError, Unavailable
from include.predictions.log import PredictionLog
from include.serving import openapi, predict
from include.serving.http import (
    Disconnected,
    Receive,
    Refusal,
    Scope,
    Send,
    answer,
    header,
    read_json_body,
    refuse,
)
from include.serving.prometheus import Metrics
from include.serving.snapshot import Loaded, Served

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}\Z")
_json = msgspec.json.Encoder().encode
Lines = Callable[[str], PredictionLog]
Admin = Callable[[str, str, str], Awaitable[Mapping[str, Any]]]


class Reason(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a rollback."""

    reason: str
    actor: str = "node"


class App:
    """Answers HTTP requests from a table of `Served` snapshots."""

    def __init__(
        self,
        *,
        token: str,
        lines: Lines,
        rollback: Admin,
        reload: Callable[[str], Awaitable[Mapping[str, Any]]],
        hosts: frozenset[str] | None = None,
    ) -> None:
        """Build it.

        `lines` opens a use case's prediction log; `hosts` are the names that Host may say (None:
        any).
        """
        self.state: dict[str, Served] = {}
        self.healthy, self.started = True, False
        self.metrics = Metrics()
        self._token = hashlib.sha256(token.encode()).digest()
        self._hosts = hosts
        self._open_log, self._logs = lines, dict[str, PredictionLog]()
        self._horizons: dict[str, predict.Horizon] = {}
        self._rollback, self._reload = rollback, reload
        self._prefix, self._count = secrets.token_hex(6), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise Unavailable(f"{scope['type']} is not served here")
        request_id = self._request_id(scope)
        use_case, route = "", ""
        try:
            self._check_host(scope)
            use_case, route = self._route(scope["path"])
            if route == "predict":
                status = await self._predict(use_case, scope, receive, send, request_id)
            else:
                status = await self._other(use_case, route, scope, receive, send, request_id)
        except Disconnected:
            status = 499
        except EvergreenError as error:
            refusal = _as_refusal(error)
            status = refusal.status
            await refuse(refusal, receive, send, request_id)
        self.metrics.count_answer(use_case, route, status)

    def install(self, served: Served) -> None:
        """Serve a snapshot from the next request on."""
        name = served.use_case.name
        known = self.state.get(name)
        if known is None or known.use_case is not served.use_case:
            self._horizons[name] = predict.Horizon(served.use_case)
        self.state[name] = served
        models = {"champion": served.champion, "previous": served.previous}
        self.metrics.show_served(
            name,
            served.generation,
            {role: model.version for role, model in models.items() if model},
        )

    def forget(self, use_case: str) -> None:
        """Serve a use case no more."""
        self.state.pop(use_case, None)
        self.metrics.hide_served(use_case)

    @property
    def logs(self) -> list[PredictionLog]:
        """The prediction logs that are open."""
        return list(self._logs.values())

    # routes

    def _route(self, path: str) -> tuple[str, str]:
        parts = path.split("/")
        if (
            len(parts) == 4
            and parts[1] == "v1"
            and parts[3] in ("predict", "model", "rollback", "reload")
        ):
            if not self.started:
                raise Refusal(
                    503,
                    "starting",
                    "the node has not read the use cases yet",
                    headers=[(b"retry-after", b"1")],
                    linger=True,
                )
            if parts[2] not in self.state:
                known = ", ".join(sorted(self.state)) or "none yet"
                raise Refusal(
                    404,
                    "unknown_use_case",
                    f"no use case {parts[2][:80]!r}; served are: {known}",
                    linger=True,
                )
            return parts[2], parts[3]
        if len(parts) == 2 and parts[1] in ("health", "metrics", "openapi.json", "docs"):
            return "", parts[1]
        raise Refusal(404, "not_found", f"no page {path[:80]!r}; see /docs", linger=True)

    async def _predict(
        self, use_case: str, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> int:
        if scope["method"] != "POST":
            raise _wrong_method(scope, "POST")
        started, clock = time.time_ns(), time.perf_counter()
        body = await read_json_body(scope, receive)
        served = self.state.get(use_case)
        if served is None:
            raise Refusal(404, "unknown_use_case", f"use case {use_case!r} is not served any more")
        asked = predict.check(predict.parse(body), served)
        model, arm, features, score = await self._score(asked, served)
        line, reply = predict.record(
            request_id, asked, served, model, arm, features, score, started
        )
        self._log(use_case).append(line)
        await answer(send, 200, _json(reply), request_id.encode("ascii"))
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

    async def _other(
        self, use_case: str, route: str, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> int:
        if route in ("rollback", "reload"):
            return await self._administer(use_case, route, scope, receive, send, request_id)
        if scope["method"] not in ("GET", "HEAD"):
            raise _wrong_method(scope, "GET")
        media = b"application/json"
        if route == "health":
            body = _json(self._health())
        elif route == "model":
            body = _json(openapi.describe(self.state[use_case]))
        elif route == "openapi.json":
            body = _json(openapi.openapi(self.state))
        elif route == "metrics":
            accepted = (header(scope, b"accept") or b"").decode("latin-1")
            body, media_type = self.metrics.render(accepted)
            media = media_type.encode("latin-1")
        else:
            body, media = openapi.docs(self.state), b"text/html; charset=utf-8"
        more = openapi.SECURITY if route == "docs" else ()
        await answer(send, 200, body, request_id.encode("ascii"), media=media, more=more)
        return 200

    async def _administer(
        self, use_case: str, route: str, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> int:
        if scope["method"] != "POST":
            raise _wrong_method(scope, "POST")
        self._authorise(use_case, route, scope)
        if route == "reload":
            done = await self._reload(use_case)
        else:
            body = await read_json_body(scope, receive)
            try:
                asked = msgspec.json.decode(body, type=Reason)
            except msgspec.ValidationError as error:
                raise Refusal(
                    422, "invalid", f"{error}; a rollback needs its reason", field="reason"
                ) from None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise Refusal(400, "bad_json", f"the body is no valid JSON: {error}") from None
            if not asked.reason.strip():
                raise Refusal(422, "invalid", "a rollback needs its reason", field="reason")
            done = await self._rollback(use_case, asked.actor[:80], asked.reason[:1000])
        await answer(send, 200, _json(done), request_id.encode("ascii"))
        return 200

    def _health(self) -> dict[str, Any]:
        cases = {}
        for name, served in sorted(self.state.items()):
            champion = served.champion
            cases[name] = {
                "model_version": champion.version if champion else None,
                "generation": served.generation,
                "problems": list(served.problems),
            }
        status = "starting" if not self.started else "ok" if self.healthy else "degraded"
        return {"status": status, "use_cases": cases}

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

    def _authorise(self, use_case: str, route: str, scope: Scope) -> None:
        scheme, _, token = (header(scope, b"authorization") or b"").partition(b" ")
        given = hashlib.sha256(token.strip()).digest()
        if not hmac.compare_digest(given, self._token) or scheme.lower() != b"bearer":
            client = (scope.get("client") or ("unknown",))[0]
            log.warning("%s: %s from %s without a valid token was refused", use_case, route, client)
            self.metrics.count_event(use_case, "unauthorised")
            raise Refusal(
                401,
                "unauthorised",
                "this changes state: send the node's token as `Authorization: Bearer ...`",
                headers=[(b"www-authenticate", b"Bearer")],
                linger=True,
            )

    def _log(self, use_case: str) -> PredictionLog:
        found = self._logs.get(use_case)
        if found is None:
            found = self._logs[use_case] = self._open_log(use_case)
        return found


def _wrong_method(scope: Scope, right: str) -> Refusal:
    return Refusal(
        405,
        "method",
        f"{scope['method']} is not served here; use {right}",
        headers=[(b"allow", right.encode())],
        linger=True,
    )


def _as_refusal(error: EvergreenError) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Conflict):
        return Refusal(409, "conflict", str(error))
    if isinstance(error, ConfigError):
        return Refusal(422, "invalid", str(error))
    return Refusal(503, "unavailable", str(error), headers=[(b"retry-after", b"5")])
