"""Whether the service of this container works: what the image's health check runs.

It asks over HTTP, or looks at the sign that a worker leaves; what a container is stands in the
command line of its first process. Run as a file, it imports no package of ours: a check every ten
seconds in ten containers must cost next to nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from pathlib import Path

ENTRY = "include.installation.container"
API = os.environ.get("EVERGREEN_AIRFLOW_ADDRESS", "http://api-server:8080")
SECONDS = 5.0
ALIVE_SECONDS = 20.0  # as include/orchestration/queues.py has it, which is not to be imported here
FIRST = Path("/proc/1/cmdline")


def main() -> int:
    """Return 0 where the service works, else say why not and return 1."""
    service = service_of(FIRST.read_bytes())
    try:
        problem = problem_of(service)
    except OSError as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        sys.stdout.write(f"{service}: {problem}\n")
    return 1 if problem else 0


def service_of(command: bytes) -> str:
    """Return the service in the command line of a container's first process."""
    words = command.decode().split("\0")
    return words[words.index(ENTRY) + 1] if ENTRY in words[:-1] else ""


def problem_of(service: str) -> str:
    """Return what is wrong with a service, '' if nothing is.

    Raises:
        OSError: it does not answer.
    """
    if service == "node":
        return _answer("http://127.0.0.1:8600/ready")
    if service == "mlflow":
        return _answer("http://127.0.0.1:5000/health")
    if service == "worker":
        return _worker()
    if service in ("api-server", "scheduler", "dag-processor", "triggerer"):
        # The API server knows the heartbeats of the others, which have no address of their own.
        base = "http://127.0.0.1:8080" if service == "api-server" else API
        return _part("metadatabase" if service == "api-server" else service, base)
    return ""  # a command, which ends by itself


def _answer(url: str) -> str:
    # No proxy of the container's environment stands between a service and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=SECONDS) as answer:
        return "" if answer.status == 200 else f"{url} answers {answer.status}"


def _part(name: str, base: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{base}/api/v2/monitor/health", timeout=SECONDS) as answer:
        told = json.load(answer)
    status = str((told.get(name.replace("-", "_")) or {}).get("status"))
    return "" if status == "healthy" else f"{name} is {status}"


def _worker() -> str:
    """Look at the sign that the worker leaves while it reaches its broker and takes tasks."""
    sign = Path(os.environ.get("EVERGREEN_HOME", "/srv/evergreen")) / "run" / "celery-worker.alive"
    age = time.time() - sign.stat().st_mtime
    return "" if age < ALIVE_SECONDS else f"the worker has left no sign for {age:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
