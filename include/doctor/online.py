"""Examine the store of the online features: Redis, or files in the home folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from include.doctor.findings import Finding, Patient, Subject, clock_finding, first_line

CROWDED = 0.8  # of the memory that Redis may take
TOLERATED_SECONDS = 5.0


def examine(patient: Patient) -> Iterator[Finding]:
    """Look at the store: version, whether it evicts, memory, clock, and how many sets it has."""
    subject = Subject("online features")
    if patient.settings.online_url.get_secret_value():
        yield from examine_redis(
            subject, patient, patient.settings.online_url.get_secret_value(), "EVERGREEN_ONLINE_URL"
        )
        return
    folder = patient.settings.home / "online"
    files = sorted(path.stem for path in folder.glob("*.db"))
    yield subject.ok("place", f"SQLite in {folder}, of {', '.join(files) or 'no use case yet'}")


def examine_broker(patient: Patient) -> Iterator[Finding]:
    """Look at the broker of the tasks, where there is one: a lost key is a lost task."""
    subject, url = Subject("broker"), patient.settings.broker_url.get_secret_value()
    if url:
        yield from examine_redis(subject, patient, url, "EVERGREEN_BROKER_URL")


def examine_redis(subject: Subject, patient: Patient, url: str, setting: str) -> Iterator[Finding]:
    """Look at a Redis whose keys must not be evicted."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    limit = max(1.0, patient.seconds / 3)
    remedy = f"start it, or mend {setting}: host, port, user, password and number"
    try:
        client: Any = redis.Redis.from_url(
            url,
            socket_timeout=limit,
            socket_connect_timeout=limit,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except ValueError:
        yield subject.fail("reachable", f"{setting} is no address of Redis", remedy)
        return
    parts = client.connection_pool.connection_kwargs
    where = parts.get("path") or f"{parts.get('host')}:{parts.get('port', 6379)}"
    try:
        before = patient.now()
        seconds, micros = client.time()
        after = patient.now()
        server, memory = client.info("server"), client.info("memory")
    except (redis.RedisError, OSError) as error:
        reason = first_line(error)
        if parts.get("password"):
            reason = reason.replace(str(parts["password"]), "***")
        yield subject.fail("reachable", f"Redis {where}: {reason}", remedy)
        return
    finally:
        client.close()
    took = (after - before).total_seconds() * 1000
    version = server.get("redis_version")
    yield subject.ok("reachable", f"Redis {version}, {where}, answers in {took:.1f} ms")
    yield _evicts(subject, memory)
    yield _memory(subject, memory)
    middle = (before + (after - before) / 2).timestamp()
    yield clock_finding(
        subject,
        seconds + micros / 1e6 - middle,
        whose="Redis's clock",
        tolerated=TOLERATED_SECONDS,
        hurts="what expires goes too early or too late",
    )


def _evicts(subject: Subject, memory: dict[str, Any]) -> Finding:
    policy, most = memory.get("maxmemory_policy", "noeviction"), memory.get("maxmemory", 0)
    if policy == "noeviction":
        return subject.ok("eviction", "maxmemory-policy noeviction")
    remedy = "set maxmemory-policy noeviction: what is evicted is lost, and nobody is told"
    if most:
        return subject.fail("eviction", f"maxmemory-policy {policy}", remedy)
    return subject.warn("eviction", f"maxmemory-policy {policy}, without maxmemory yet", remedy)


def _memory(subject: Subject, memory: dict[str, Any]) -> Finding:
    used, most = int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))
    if most and used > CROWDED * most:
        found = f"{used / 1e6:.0f} of {most / 1e6:.0f} MB are taken"
        return subject.warn("memory", found, "raise maxmemory: a full one refuses new features")
    of = f" of {most / 1e6:.0f}" if most else ""
    return subject.ok("memory", f"{used / 1e6:.0f}{of} MB are taken")
