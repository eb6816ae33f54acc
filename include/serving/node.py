"""The serving node, what users call: one process with a raw ASGI application and a reconciler that
follows the routing rows.

It imports no feast, mlflow, pandas, scikit-learn or airflow. Here: socket, uvicorn, housekeeping,
and an orderly end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Mapping
from types import FrameType
from typing import Any

import uvicorn
import uvloop

from include.config.settings import Settings
from include.deployment.rollback import record_rollback
from include.errors import ConfigError, EvergreenError
from include.predictions.log import PredictionLog
from include.records.records import Records
from include.serving.app import App
from include.serving.http_limits import EdgeProtocol, sweep
from include.serving.reconciler import Reconciler

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1024
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class _Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's server, which ends on a signal without raising it again: the node has more to
    put in order.
    """

    asked_to_end = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish what is in hand; a second Ctrl-C does not wait for it."""
        if self.asked_to_end and sig == signal.SIGINT:
            self.force_exit = True
        self.asked_to_end = self.should_exit = True


def serve(settings: Settings) -> None:
    """Run the serving node until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: its port is taken.
    """
    listener = _listen(settings.host, settings.node_port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(settings, listener))


async def _main(settings: Settings, listener: socket.socket) -> None:
    node = f"{socket.gethostname()}:{settings.node_port}"

    async def roll_back(use_case: str, actor: str, reason: str) -> Mapping[str, Any]:
        # MLflow's aliases follow with the next deployment: MLflow is not imported into the node.
        records = Records.open(settings.records_address)
        await asyncio.to_thread(record_rollback, records, use_case, actor, reason)
        return await reconciler.reload(use_case)

    async def reload(use_case: str) -> Mapping[str, Any]:
        return await reconciler.reload(use_case)

    app = App(
        token=settings.node_secret.get_secret_value(),
        open_log=lambda use_case: PredictionLog(settings.home, use_case),
        rollback=roll_back,
        reload=reload,
        hosts=_LOOPBACK | {settings.host} if settings.host in _LOOPBACK else None,
    )
    # What stays is not walked by every full collection.
    reconciler = Reconciler(settings, app, node=node, swapped=gc.freeze)
    server = _Server(
        uvicorn.Config(
            app,
            http=EdgeProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
            limit_concurrency=MAX_CONNECTIONS,
        )
    )
    gc.collect()
    gc.freeze()
    tasks = [asyncio.create_task(reconciler.run()), asyncio.create_task(_keep_house(app, server))]
    for task in tasks:
        task.add_done_callback(lambda ended: _ended(ended, server))
    log.info("the serving node answers on http://%s:%d", settings.host, settings.node_port)
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await reconciler.close()
        for lines in app.logs:
            lines.close()
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            raise EvergreenError(
                f"the serving node ended: {task.exception()}"
            ) from task.exception()


async def _keep_house(app: App, server: uvicorn.Server) -> None:
    """Once a second: close prediction log segments that are old enough, sync the open ones, send
    slow clients away.
    """
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1.0)
        late = sweep(server.server_state.connections, loop.time())
        if late:
            app.metrics.count_event("", "slow_client", late)
        for lines in app.logs:
            try:
                lines.rotate()
                await asyncio.to_thread(lines.sync)
            except OSError as error:
                log.warning("a prediction log segment could not be closed: %s", error)


def _ended(task: asyncio.Task[None], server: uvicorn.Server) -> None:
    """Stop the node when a part of it dies: who supervises it starts a whole one."""
    if not task.cancelled() and task.exception() is not None:
        log.error("a part of the node died", exc_info=task.exception())
        server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"the serving node cannot listen on {host}:{port} ({error.strerror}); "
            "stop what holds the port, or set EVERGREEN_NODE_PORT to a free one"
        ) from error
    listener.setblocking(False)
    return listener
