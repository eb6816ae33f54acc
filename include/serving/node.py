"""The serving node: one process that answers predictions and follows the routing rows.

This module has its socket, uvicorn, the housekeeping and an orderly end. The node imports no feast,
mlflow, pandas, scikit-learn or airflow.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import resource
import secrets
import signal
import socket
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

import uvicorn
import uvloop

from include.artefacts.store import ArtefactStore
from include.config.settings import Settings
from include.deployment.rollback import Order
from include.errors import EvergreenError
from include.features.online_stores import open_store
from include.models.kinds import every_kind
from include.models.pins import serving_pins
from include.models.public_keys import KeyRing
from include.predictions.entity_hash import entity_hasher
from include.records.records import Records
from include.serving.access import Access, TokenSource, open_roles, take_news
from include.serving.access_log import AccessLog
from include.serving.app import App
from include.serving.code_stamp import CodeStamp
from include.serving.direct_protocol import DirectProtocol
from include.serving.http_limits import end_slow_requests
from include.serving.journal import Journal
from include.serving.key_source import KeySource
from include.serving.listener import open_listener, take_over
from include.serving.loops import keep_going
from include.serving.peers import SHARE, PeerProtocol
from include.serving.quiet import bound_log
from include.serving.reconciler import Reconciler
from include.serving.release_loops import ReleaseLoops
from include.serving.releases_page import ReleaseLook, read_views
from include.serving.rollbacks import Rollbacks
from include.serving.serving_table import ServingTable
from include.serving.upkeep import Upkeep
from include.serving.workers import Workers

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1024
_OWN_FILES, _ENOUGH_FILES = 128, 65536
START_SECONDS = 10.0  # for so long a node that starts accepts nobody while champions load
DRAIN_SECONDS = 1.5  # for so long open connections are told to go, in their next answer
HOUSEKEEPING_SECONDS = 1.0
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})  # as they stand in Host


class _Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's server, which ends on a signal without raising it again.

    The node has more to put in order after it.
    """

    asked_to_end = False
    drained_at = 0.0  # monotonic seconds
    table: ServingTable | None = None
    is_shared = False  # another process holds the listening socket too

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain: finish what is in hand; a second Ctrl-C does not wait for it."""
        if self.asked_to_end and sig == signal.SIGINT:
            self.force_exit = self.should_exit = True
        if not self.asked_to_end:
            self.asked_to_end, self.drained_at = True, time.monotonic() + DRAIN_SECONDS
        if self.table is not None:
            self.table.draining = True

    async def on_tick(self, counter: int) -> bool:
        """End once everybody was told to go, in an answer; look ten times a second."""
        if self.asked_to_end:
            if self.is_shared:  # who comes now waits in the socket for the next process
                for server in self.servers:
                    server.close()
            if not self.server_state.connections or time.monotonic() >= self.drained_at:
                self.should_exit = True
        ends: bool = await super().on_tick(counter)
        return ends


def serve(settings: Settings, *, listener: socket.socket | None = None) -> None:
    """Run the serving node until SIGTERM or Ctrl-C.

    `listener` is a socket that somebody else listens on too, and hands to the next node; without
    one the node takes over the supervisor's, or opens its own.

    Raises:
        ConfigError: its port is taken, one of its tokens is malformed, or the address of the online
            store is none.
    """
    bound_log()
    # An address that is none is told at the start; a store that is away is only waited for.
    open_store(settings, "any").close()
    if listener is None and settings.node_listener is not None:
        listener = take_over(settings.node_listener)
    is_shared = listener is not None
    listener = listener or open_listener(settings.host, settings.node_port)
    listener.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(settings, listener, is_shared))


async def _main(settings: Settings, listener: socket.socket, is_shared: bool) -> None:
    node = f"{socket.gethostname()}:{settings.node_port}"
    stamp = CodeStamp()
    for kind in every_kind():
        serving_pins(kind)  # of the code that is loaded now; computed later, it might be another

    workers = Workers()
    tokens = TokenSource(settings)
    access = Access(tokens.read(), free=open_roles(settings))

    async def roll_back(use_case: str, order: Order) -> tuple[bool, Mapping[str, Any]]:
        return await rollbacks.take_back(use_case, order)

    async def reload(use_case: str) -> Mapping[str, Any]:
        return await reconciler.reload(use_case)

    journal = Journal(settings.home / "serving" / f"rollbacks-{settings.node_port}.json")
    app = App(
        access=access,
        home=settings.home,
        ships=bool(settings.segments_root),
        hasher=lambda: entity_hasher(settings.entity_secret.get_secret_value()),
        rollback=roll_back,
        reload=reload,
        hosts=allowed_hosts(settings.host),
        seconds=settings.request_seconds,
        access_log=_open_access_log(settings),
    )
    if app.access_log is not None:
        app.access_log.failed = lambda: app.metrics.count_event("", "access_log_failed")
    records = Records.open(settings.records_address, pool=settings.database_pool)
    boot = secrets.token_hex(8)
    app.table.look_at_releases = ReleaseLook(
        lambda names: workers.run("pages", read_views, records, names)
    ).views
    release = ReleaseLoops(settings, app, records, workers, node=node, boot=boot)
    # Frozen, what stays is not walked by each full collection: that stopped the node for 100 ms.
    reconciler = Reconciler(
        settings,
        app,
        node=node,
        boot=boot,
        workers=workers,
        swapped=gc.freeze,
        journal=journal,
        guard=release.guard.why,
    )
    release.guard.latched = reconciler.apply
    rollbacks = Rollbacks(
        records,
        workers,
        reconciler,
        journal,
        node,
    )
    connections = connection_cap()
    PeerProtocol.most = max(1, int(connections * SHARE))
    server = _Server(
        uvicorn.Config(
            app,
            http=DirectProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
            limit_concurrency=connections + 1,  # which `PeerProtocol` never lets it reach
        )
    )
    server.table, server.is_shared = app.table, is_shared
    gc.collect()
    gc.freeze()
    failed = app.metrics.count_failed_loop
    keys = KeySource(settings.signing_keys_folder)
    upkeep = Upkeep(app, workers, stamp, ArtefactStore.of(settings), lambda: reconciler.models)
    tasks = [
        asyncio.create_task(reconciler.run()),
        asyncio.create_task(keep_going("upkeep", upkeep.turn, failed)),
        *(
            asyncio.create_task(keep_going(name, turn, failed))
            for name, turn in release.loops().items()
        ),
        asyncio.create_task(keep_going("journal", rollbacks.turn, failed)),
        asyncio.create_task(keep_going("house", lambda: _keep_house(app, server, workers), failed)),
        asyncio.create_task(
            keep_going("tokens", lambda: _follow_tokens(tokens, access, workers), failed)
        ),
        asyncio.create_task(
            keep_going("keys", lambda: _follow_keys(keys, reconciler, workers), failed)
        ),
    ]
    for task in tasks:
        task.add_done_callback(lambda ended: _stop_if_it_died(ended, server))
    # Who connects meanwhile waits in the socket, and is not told that the node only starts.
    await reconciler.ready_to_serve(START_SECONDS)
    log.info("the serving node answers on %s", settings.node_url)
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await release.close()
        await reconciler.close()
        app.log.close()
        if app.access_log is not None:
            app.access_log.close()
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            raise EvergreenError(f"the serving node ended: {error}") from error


def _open_access_log(settings: Settings) -> AccessLog | None:
    """Return the access log that the settings ask for; None: there is none."""
    if not settings.access_log:
        return None
    path = settings.home / "logs" / f"access-{settings.node_port}.jsonl"
    return AccessLog(path, settings.access_log)


async def _keep_house(app: App, server: uvicorn.Server, workers: Workers) -> None:
    """Wait a second, then send slow clients away, and look after the prediction logs.

    Synced so often, a loss of power takes the answers of a second at most; a kill takes none.
    """
    await asyncio.sleep(HOUSEKEEPING_SECONDS)
    late = end_slow_requests(server.server_state.connections, asyncio.get_running_loop().time())
    if late:
        app.metrics.count_event("", "slow_client", late)
    if refused := PeerProtocol.take_refused():
        app.metrics.count_event("", "connection_refused", refused)
    await app.log.keep(workers)


async def _follow_tokens(tokens: TokenSource, access: Access, workers: Workers) -> None:
    """Wait a second, then take over the tokens if their file has changed."""
    await asyncio.sleep(HOUSEKEEPING_SECONDS)
    take_news(access, await workers.run("tokens", tokens.news))


async def _follow_keys(keys: KeySource, reconciler: Reconciler, workers: Workers) -> None:
    """Take over the public keys if their folder has changed, then wait a second."""
    news = await workers.run("keys", keys.news)
    if isinstance(news, KeyRing):
        reconciler.take_keys(news)
    await asyncio.sleep(HOUSEKEEPING_SECONDS)


def _stop_if_it_died(task: asyncio.Task[None], server: uvicorn.Server) -> None:
    """Stop the node when a part of it dies: who supervises it starts a whole one."""
    if not task.cancelled() and task.exception() is not None:
        log.error("a part of the node died", exc_info=task.exception())
        server.should_exit = True


def connection_cap() -> int:
    """Raise the limit of open files as far as it goes; return how many connections that allows.

    The usual limit is 1024: that many idle clients would leave the node none for its own files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, _ENOUGH_FILES)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # some systems name a hard limit that they do not grant
        hard = soft
    return max(1, min(MAX_CONNECTIONS, hard - _OWN_FILES))


def allowed_hosts(host: str) -> frozenset[str] | None:
    """Return the names that Host may say to a node on this address; None: any.

    On a loopback address, of which 127.0.0.0/8 has many, only names of this machine are answered;
    on another one, the node cannot know by which names it is reached.
    """
    name = f"[{host}]" if ":" in host else host
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = name in _LOOPBACK_NAMES
    return _LOOPBACK_NAMES | {name} if is_loopback else None
