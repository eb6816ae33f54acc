"""Build, try and export one Bento in a BentoML home of its own.

Runs as a child process, which ends with its parent, however that dies.

    python -m include.packaging.bento_build < order.json     (keep stdin open: its end is the
    parent's end)

BentoML's store has no transactions and its settings are read at import, so nothing of this happens
in the real home: the parent moves what is finished, tried and exported into place.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from include.clock import wait_for
from include.models.bundle import GOLDEN
from include.models.golden import TOLERANCE
from include.processes import python_module, start, tail

SERVE_SECONDS = 90.0
_servers: list[subprocess.Popen[bytes]] = []


class BuildFailed(Exception):
    """The Bento could not be built, or does not answer as its model does."""


class TooSlow(Exception):
    """The machine was too slow, which says nothing of the Bento: another try may do."""


def main() -> int:
    """Carry out the order on stdin and write the result, or what went wrong, to `result.json`.

    The file lies in the order's staging folder; without one, this process died.
    """
    order = json.loads(_read_first_line())
    staging = Path(order["staging"])
    home = Path(os.environ["BENTOML_HOME"])
    threading.Thread(target=_end_with_parent, args=(home,), daemon=True).start()
    _offer_uv(staging / "bin")
    try:
        tags = _build(order)
        exported = staging / f"{tags['bento_tag'].replace(':', '-')}.bento"
        _try(tags["bento_tag"], staging, Path(order["bundle"]), exported)
        result = {**tags, "export": str(exported)}
    except BuildFailed as error:
        result = {"error": str(error)}
    except TooSlow as error:
        result = {"too_slow": str(error)}
    finally:
        _end_all(home)
    (staging / "result.json").write_text(json.dumps(result))
    return 0


def _offer_uv(folder: Path) -> None:
    """Put a `uv` on the path that does nothing.

    BentoML asks for one before it knows whether it needs it, which a build that locks nothing does
    not; where it finds none it installs whatever version the index has into this environment.
    """
    folder.mkdir()
    command = folder / "uv"
    command.write_text(
        "#!/bin/sh\necho 'nothing is installed while a Bento is built' >&2\nexit 1\n"
    )
    command.chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _build(order: dict[str, Any]) -> dict[str, str]:
    import bentoml

    try:
        with bentoml.models.create(
            f"{order['model_name']}:{order['version']}", labels=order["labels"]
        ) as model:
            folder = Path(model.path_of("bundle"))
            folder.mkdir()
            for source in Path(order["bundle"]).iterdir():
                (folder / source.name).write_bytes(source.read_bytes())
        bento = bentoml.build(
            "service:Scorer",
            build_ctx=order["context"],
            include=["*.py", "include/**/*.py"],
            name=order["bento_name"],
            version=order["version"],
            labels={**order["labels"], "model_tag": str(model.tag)},
            python={"requirements_txt": "requirements.txt", "lock_packages": False},
            args={
                "model": str(model.tag),
                "digest": order["digest"],
                "version": order["model_version"],
            },
        )
    except (bentoml.exceptions.BentoMLException, OSError) as error:
        raise BuildFailed(f"the Bento could not be built: {error}") from error
    return {"bento_tag": str(bento.tag), "model_tag": str(model.tag)}


def _try(tag: str, staging: Path, bundle: Path, exported: Path) -> None:
    """Serve the Bento as anybody would and compare its answers to the golden rows.

    It is exported while the server starts: both take seconds, and neither needs the other.
    """
    rows = json.loads((bundle / GOLDEN).read_text())
    port, log = _free_port(), staging / "serve.log"
    # Without our path: it must run by what was shipped.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # BentoML's master renames itself, and would write over its environment.
    environment["SPT_NOENV"] = "1"
    command = python_module("bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port))
    with log.open("wb") as output:
        server = start(command, environment=environment, folder=staging, log=output)
    _servers.append(server)
    _export(tag, exported)
    try:
        _await_ready(server, port, log)
        for number, (row, expected) in enumerate(zip(rows["rows"], rows["scores"], strict=True)):
            score = _ask(port, row)
            if not math.isclose(score, expected, rel_tol=0, abs_tol=TOLERANCE):
                raise BuildFailed(
                    f"golden row {number}: the Bento answers {score!r}, the model {expected!r}"
                )
    except (OSError, ValueError) as error:
        raise BuildFailed(
            f"the Bento does not answer ({error}); its log ends with:\n{tail(log)}"
        ) from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)


def _await_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server says that it is ready.

    Raises:
        BuildFailed: it ended.
        TooSlow: it was not ready in time.
    """

    def ready() -> bool:
        if server.poll() is not None:
            raise BuildFailed(
                f"`bentoml serve` ended with code {server.returncode}; its log ends with:\n"
                f"{tail(log)}"
            )
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return True
        except OSError:
            return False

    if not wait_for(ready, seconds=SERVE_SECONDS, every=0.1):
        raise TooSlow(
            f"`bentoml serve` was not ready after {SERVE_SECONDS:.0f} s; its log ends with:\n"
            f"{tail(log)}"
        )


def _ask(port: int, row: dict[str, Any]) -> float:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict",
        json.dumps({"features": row}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310
        return float(json.loads(answer.read())["score"])


def _export(tag: str, target: Path) -> None:
    import bentoml

    # An absolute path: BentoML resolves a relative one against the root of the file system.
    bentoml.export_bento(tag, str(target.resolve()))


def _free_port() -> int:
    """Return a port that was free a moment ago; if it is taken now, the server ends and says so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read_first_line() -> bytes:
    """Read stdin up to its first line feed.

    By the descriptor: a thread that waits on `sys.stdin` could not be left behind.
    """
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            raise SystemExit("no order was given")
        line += piece
    return line


def end_users(home: Path) -> None:
    """Kill every process that works in a BentoML home, this one aside.

    BentoML's workers lead sessions of their own and outlive their killed master: only what they
    were started with finds them.
    """
    for _ in range(5):  # a dying master may just have forked
        users = [
            process
            for process in psutil.process_iter()
            if process.pid != os.getpid() and _home_of(process) == str(home)
        ]
        if not users:
            return
        for process in users:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(users, timeout=2)


def _end_all(home: Path) -> None:
    for server in _servers:  # the master first: it would start its workers again
        server.kill()
    end_users(home)


def _home_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("BENTOML_HOME")
    except (psutil.Error, OSError):  # gone, or somebody else's
        return None


def _end_with_parent(home: Path) -> None:
    while os.read(0, 4096):  # stdin ends when the parent closes it, or dies of anything
        pass
    _end_all(home)
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main())
