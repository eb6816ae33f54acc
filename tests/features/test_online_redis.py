"""What only Redis does: stages and a pointer, what expires, what is evicted, flushed or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from include.config.settings import ROOT, Settings
from include.errors import ConfigError, Conflict, Unavailable
from include.features import online_redis_rows
from include.features.online_redis import KEEP_SECONDS, STAGING_SECONDS, RedisStore
from include.features.online_rows import RowsLost, pack, rows_digest
from tests.builders import redis_server
from tests.features.test_online_stores import SET, of


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with redis_server.prefix() as own:
        url = SecretStr(redis_server.URL)
        yield Settings(home=tmp_path, online_url=url, online_prefix=own)


@pytest.fixture
def store(settings: Settings) -> RedisStore:
    return RedisStore(settings, "shop")


@pytest.fixture
def server() -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_server.URL, decode_responses=True)
    yield client
    client.close()


def rows_keys(server: redis.Redis, settings: Settings) -> dict[str, int]:
    """Return the keys of rows with the seconds that each still lives (-1: for ever)."""
    return {key: server.ttl(key) for key in server.scan_iter(f"{settings.online_keys}:*:rows:*")}  # type: ignore[misc]


def test_the_rows_before_stay_for_a_minute_and_the_new_ones_for_ever(
    store: RedisStore, settings: Settings, server: redis.Redis
) -> None:
    store.publish(of("2025-01-01"), [pack(1, 1, [1])])
    (first,) = rows_keys(server, settings)
    store.publish(of("2025-01-02"), [pack(1, 2, [2])])
    lives = rows_keys(server, settings)
    assert 0 < lives.pop(first) <= KEEP_SECONDS
    assert list(lives.values()) == [-1]
    assert all(key.startswith(f"{settings.online_keys}:{{shop/aaaa}}:") for key in lives)


def test_a_publication_that_another_overtakes_changes_nothing(
    store: RedisStore, settings: Settings, server: redis.Redis
) -> None:
    store.publish(of("2025-01-02"), [pack(1, 1, [1])])
    other = RedisStore(settings, "shop")

    def overtake() -> None:
        other.publish(of("2025-01-02"), [pack(1, 2, [2])])

    with pytest.raises(Conflict, match="somebody else meanwhile"):
        store.publish(of("2025-01-02"), [pack(1, 3, [3])], check=overtake)
    assert store.get("aaaa", 1) == (2, [2])
    assert sorted(rows_keys(server, settings).values())[0] == -1
    assert len(rows_keys(server, settings)) == 2, "what was staged is gone"

    def overtake_by_newer() -> None:
        other.publish(of("2025-01-05"), [pack(1, 5, [5])])

    with pytest.raises(Conflict, match="2025-01-05"):
        store.publish(of("2025-01-03"), [pack(1, 3, [3])], check=overtake_by_newer)
    assert store.get("aaaa", 1) == (5, [5])


def test_rows_that_are_gone_before_the_end_move_no_pointer(
    store: RedisStore, settings: Settings, server: redis.Redis
) -> None:
    store.publish(of("2025-01-01"), [pack(1, 1, [1])])
    (first,) = rows_keys(server, settings)

    def evict() -> None:
        (staged,) = set(rows_keys(server, settings)) - {first}
        server.unlink(staged)

    with pytest.raises(Unavailable, match="rows that were written are gone"):
        store.publish(of("2025-01-02"), [pack(1, 2, [2])], check=evict)
    assert store.get("aaaa", 1) == (1, [1])


def test_rows_that_are_gone_are_no_unknown_entity(
    store: RedisStore, settings: Settings, server: redis.Redis
) -> None:
    store.publish(SET, [pack(1, 1, [1])])
    (rows,) = rows_keys(server, settings)
    server.unlink(rows)
    with pytest.raises(RowsLost, match="run materialize_features"):
        store.get("aaaa", 1)
    with pytest.raises(RowsLost):
        list(store.rows("aaaa"))
    store.publish(SET, [pack(1, 1, [1])])
    assert store.get("aaaa", 2) is None
    server.hset(f"{settings.online_keys}:{{shop/aaaa}}:online", "described", "nonsense")
    with pytest.raises(RowsLost, match="cannot be read"):
        store.describe("aaaa")


WRITER = """
import dataclasses, sys
from pathlib import Path
from pydantic import SecretStr
from include.config.settings import Settings
from include.features.online_redis import RedisStore
from include.features.online_rows import pack, rows_digest
from tests.features.test_online_stores import of
settings = Settings(home=Path(sys.argv[1]), online_url=SecretStr(sys.argv[2]),
                    online_prefix=sys.argv[3])
store, first = RedisStore(settings, "shop"), int(sys.argv[4])
for day in range(first, first + 400):
    rows = [pack(f"{n:05}", day, [day] * 8) for n in range(1500 + day % 7)]
    store.publish(dataclasses.replace(of(f"{day:010}"), digest=rows_digest(rows)), rows)
    print(day, flush=True)
"""


def test_a_killed_publication_leaves_the_old_rows_and_expires(
    store: RedisStore, settings: Settings, server: redis.Redis
) -> None:
    day = 0
    for pause in (0.0, 0.004, 0.007, 0.011, 0.02):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(settings.home), redis_server.URL,
             settings.online_keys, str(day)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        acknowledged = int(child.stdout.readline())
        time.sleep(pause)
        os.kill(child.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, child.stdout.read().split())])
        child.wait()
        there = store.describe("aaaa")
        assert there is not None
        day = int(there.partition)
        assert day >= acknowledged
        rows = list(store.rows("aaaa"))
        assert {event for _, event, _ in rows} == {day}
        assert rows_digest(rows) == there.digest
    lives = rows_keys(server, settings)
    assert list(lives.values()).count(-1) == 1, "one publication stays, all others expire"
    assert all(0 < ttl <= STAGING_SECONDS for ttl in lives.values() if ttl != -1)


def test_a_server_that_evicts_is_refused_and_one_without_memory_changes_nothing(
    tmp_path: Path,
) -> None:
    with redis_server.own_server(tmp_path, "--maxmemory", "8mb") as own:
        own.client.config_set("maxmemory-policy", "allkeys-lru")
        store = RedisStore(Settings(home=tmp_path, online_url=SecretStr(own.url)), "shop")
        with pytest.raises(ConfigError, match=r"evicts keys \(allkeys-lru\)"):
            store.publish(SET, [pack(1, 1, [1])])
        own.client.config_set("maxmemory-policy", "noeviction")
        store.publish(of("2025-01-01"), [pack(1, 1, [1])])
        big = (pack(number, 2, ["x" * 1000]) for number in range(20_000))
        with pytest.raises(Unavailable, match="maxmemory"):
            store.publish(of("2025-01-02"), big)
        assert store.get("aaaa", 1) == (1, [1]), "it is read although memory is used up"
        store.publish(of("2025-01-02"), [pack(1, 2, [2])])
        assert store.get("aaaa", 1) == (2, [2]), "what was staged gave its memory back"


def test_a_replica_that_may_not_be_written_is_read(tmp_path: Path) -> None:
    with redis_server.own_server(tmp_path) as own:
        store = RedisStore(Settings(home=tmp_path, online_url=SecretStr(own.url)), "shop")
        store.publish(of("2025-01-01"), [pack(1, 1, [1])])
        own.client.replicaof("127.0.0.1", "1")  # of nobody who answers
        with pytest.raises(Unavailable, match="ReadOnly"):
            store.publish(of("2025-01-02"), [pack(1, 2, [2])])
        assert store.get("aaaa", 1) == (1, [1])
        own.client.replicaof("NO", "ONE")


def test_a_server_that_hides_its_settings_is_believed(tmp_path: Path) -> None:
    with redis_server.own_server(tmp_path) as own:
        own.client.execute_command(
            "ACL SETUSER writer on >a-password ~* +@read +@write +@scripting +@connection "
            "+@transaction -info"
        )
        url = own.url.replace("//", "//writer:a-password@")
        store = RedisStore(Settings(home=tmp_path, online_url=SecretStr(url)), "shop")
        store.publish(SET, [pack(1, 1, [1])])
        assert store.get("aaaa", 1) == (1, [1])
        assert "a-password" not in store.where
        wrong = Settings(home=tmp_path, online_url=SecretStr(url.replace("a-pass", "b-pass")))
        with pytest.raises(Unavailable) as refused:
            RedisStore(wrong, "shop").get("aaaa", 1)
        assert "b-pass" not in str(refused.value)


def test_the_script_gives_the_description_only_where_it_is_new(store: RedisStore) -> None:
    store.publish(SET, [pack(1, 1, [1]), pack(2, 2, [2])])
    keys = store._keys("aaaa")

    def ask(known: bytes) -> online_redis_rows.Reply | None:
        answer = store._client.eval(
            online_redis_rows.READ, 1, keys.pointer, known, keys.rows, "2", "9"
        )  # type: ignore[arg-type]
        return online_redis_rows.Reply.read(answer)  # type: ignore[arg-type]

    first = ask(b"")
    assert first is not None
    assert online_redis_rows.read_described("aaaa", first.described) == SET
    again = ask(first.publication)
    assert again is not None
    assert (again.described, again.row(0, ""), again.row(1, "")) == (b"", (2, [2]), None)


@pytest.mark.parametrize("reply", [b"OK", 7, None, [b"one"], [1, 2, 3, 4, 5]])
def test_what_is_no_reply_of_the_script_is_no_store(reply: object) -> None:
    with pytest.raises(Unavailable, match="no Redis that runs scripts"):
        online_redis_rows.Reply.read(reply)  # type: ignore[arg-type]


@pytest.mark.parametrize("packed", [b"", b"short", b"12345678", b"12345678\xc1"])
def test_a_damaged_row_is_no_unknown_entity(packed: bytes) -> None:
    reply = online_redis_rows.Reply(b"1", b"", True, [packed])
    with pytest.raises(RowsLost, match="an online row cannot be read"):
        reply.row(0, "Redis")


@pytest.mark.parametrize(
    "text", [b"{", b"[" * 100_000, b'{"layout": "[]", "partition": "", "ttl": 1e30}', b'"\xe1"']
)
def test_a_damaged_pointer_is_to_be_published_again(text: bytes) -> None:
    with pytest.raises(RowsLost, match="pointer of feature set aaaa in Redis cannot be read"):
        online_redis_rows.read_described("aaaa", text)
