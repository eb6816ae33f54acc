"""Load for a server: wrk, or where it is absent a plain generator of ours, and what it cost.

wrk is a C program (`apt-get install wrk`). Ours takes more time a request than a fast server does,
so that its rates and latencies say little; the server's CPU seconds a request are right with both.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_SCRIPT = """
local bodies, at = {}, 0
local texts = %s
init = function(args)
  for number, text in ipairs(texts) do
    bodies[number] = wrk.format("POST", "%s", {["content-type"] = "application/json"}, text)
  end
end
request = function()
  at = at %% #bodies + 1
  return bodies[at]
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %%d, "micros": %%d, "p50": %%f, "p99": %%f, "max": %%f, '
    .. '"failed": %%d}\\n', summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency.max, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
# Of any length up to twice the mean: equal ones would keep all connections in step.
_DELAY = """
delay = function()
  return math.random(0, 2 * %d)
end
"""


@dataclass(frozen=True)
class Load:
    """What a load saw: answers a second, latencies in ms, failed requests, CPU us a request."""

    rate: float
    p50: float
    p99: float
    longest: float
    failed: int
    cpu: float


def has_wrk() -> bool:
    """Tell whether wrk is installed."""
    return shutil.which("wrk") is not None


def drive(
    pid: int,
    port: int,
    path: str,
    bodies: Sequence[bytes],
    *,
    connections: int,
    seconds: int,
    folder: Path,
    pause: int = 0,
) -> Load:
    """Ask a server for so long; wrk knows whole seconds alone.

    Each connection waits for `pause` ms on average between two requests. The server's CPU time is
    that of its whole tree of processes.
    """
    before = _cpu(pid)
    if has_wrk():
        told = _wrk(port, path, bodies, connections, seconds, folder, pause)
    else:
        told = asyncio.run(_ours(port, path, bodies, connections, seconds, pause))
    requests = max(1.0, told["requests"])
    return Load(
        told["requests"] / told["micros"] * 1e6,
        told["p50"] / 1e3,
        told["p99"] / 1e3,
        told["max"] / 1e3,
        int(told["failed"]),
        (_cpu(pid) - before) / requests * 1e6,
    )


def _wrk(
    port: int,
    path: str,
    bodies: Sequence[bytes],
    connections: int,
    seconds: int,
    folder: Path,
    pause: int,
) -> dict[str, float]:
    texts = "{" + ", ".join(f"[==[{body.decode()}]==]" for body in bodies) + "}"
    script = folder / "load.lua"
    # A delay, even of nothing, is a timer a request.
    delay = _DELAY % pause if pause else ""
    script.write_text(_SCRIPT % (texts, path) + delay)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(script), f"http://127.0.0.1:{port}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return told


async def _ours(
    port: int, path: str, bodies: Sequence[bytes], connections: int, seconds: int, pause: int
) -> dict[str, float]:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    asked = [head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body) for body in bodies]
    began, took, failed = time.perf_counter(), list[float](), 0

    async def client(start: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = start
        while (sent := time.perf_counter()) - began < seconds:
            writer.write(asked[number % len(asked)])
            top = await reader.readuntil(b"\r\n\r\n")
            length = top.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            took.append(time.perf_counter() - sent)
            failed += not top.startswith(b"HTTP/1.1 200")
            number += 1
            await asyncio.sleep(random.uniform(0, pause / 500))
        writer.close()

    await asyncio.gather(*(client(number * 7) for number in range(connections)))
    cuts = statistics.quantiles(took, n=100)
    return {
        "requests": len(took),
        "micros": (time.perf_counter() - began) * 1e6,
        "p50": cuts[49] * 1e6,
        "p99": cuts[98] * 1e6,
        "max": max(took) * 1e6,
        "failed": failed,
    }


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process and of those below it."""
    process = psutil.Process(pid)
    return sum(
        times.user + times.system
        for one in (process, *process.children(recursive=True))
        if (times := one.cpu_times())
    )


def machine_is_busy() -> bool:
    """Tell whether others use the machine: latencies then say more of them than of the server."""
    return os.getloadavg()[0] > (os.cpu_count() or 1) / 2
