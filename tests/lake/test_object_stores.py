"""A lake in an object store: commits, fences, reads by copies, a vacuum; S3 and Azure alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from include.errors import Busy, ConfigError, SourceError
from include.lake import copies
from include.lake.appended import AppendedTable
from include.lake.coded import read_coded
from include.lake.commits import Fence
from include.lake.copies import copies_of, keep_copies, remove_unused
from include.lake.digests import digest
from include.lake.sql import connect
from include.lake.tables import Lake
from include.lake.vacuum import find_unneeded, remove_unneeded, tables_below
from include.object_stores import delta_options, explain, filesystem, shown
from tests.builders.azure_store import azure_server, make_container
from tests.builders.object_stores import forget_connections

TABLE = "u/raw/a"


def rows(*ids: int, **columns: list[object]) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), **columns})


def fence(token: int, app: str = "stage/key") -> Fence:
    return Fence(app, token, lambda: None)


@pytest.fixture(scope="module")
def azure_port() -> Iterator[int]:
    with azure_server() as port:
        yield port


@pytest.fixture(params=["s3", "azure"])
def remote(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lake]:
    if request.param == "s3":
        uri = request.getfixturevalue("s3_store").uri
    else:
        store = make_container(request.getfixturevalue("azure_port"))
        uri = store.uri
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(copies, "_place", [(tmp_path / "copies", 1 << 30)])
    yield Lake(f"{uri}/lake")
    forget_connections()


def ids(lake: Lake, table: str = TABLE, **given: object) -> list[int]:
    return sorted(lake.read(table, **given)["id"].to_pylist())  # type: ignore[arg-type]


def test_a_partition_is_replaced_and_others_stay(remote: Lake) -> None:
    first = remote.replace(TABLE, "2026-01-01", rows(1, 2))
    remote.replace(TABLE, "2026-01-02", rows(3))
    remote.replace(TABLE, "2026-01-01", rows(9, name=["x"]))
    assert ids(remote) == [3, 9]
    assert ids(remote, version=first) == [1, 2]
    assert remote.keys(TABLE) == ["2026-01-01", "2026-01-02"]
    assert remote.read(TABLE, keys=["2026-01-02"]).to_pydict() == {
        "id": [3],
        "name": [None],
        "partition": ["2026-01-02"],
    }
    remote.set_partition(TABLE, "2026-01-01", rows())
    assert ids(remote) == [3]
    assert Lake(remote.root).read("u/none").num_columns == 0


def test_rows_have_the_digest_that_they_have_in_a_folder(remote: Lake, tmp_path: Path) -> None:
    given = rows(*range(50), name=[f"n{number % 3}" for number in range(50)])
    local = Lake(str(tmp_path / "lake"))
    for lake in (local, remote):
        for day in range(1, 8):
            lake.replace(TABLE, f"2026-01-0{day}", given.slice(day * 5, 10))
    keys = remote.keys(TABLE)

    def of(table: pa.Table) -> str:
        return digest(table, sort_by=["id"])

    assert of(remote.read(TABLE)) == of(local.read(TABLE))
    coded = read_coded(remote, TABLE, keys, number="id", of="name")
    assert (
        coded["id"].to_pylist()
        == read_coded(local, TABLE, keys, number="id", of="name")["id"].to_pylist()
    )


def test_of_many_files_those_of_the_wanted_partitions_are_copied_and_once(
    remote: Lake, tmp_path: Path
) -> None:
    for day in range(1, 6):
        remote.replace(TABLE, f"2026-01-0{day}", rows(day))

    def copied() -> dict[str, int]:
        return {
            path.parent.name: path.stat().st_ino
            for path in (tmp_path / "copies").rglob("*.parquet")
        }

    with connect() as con:
        remote.scan(con, "late", TABLE, since="2026-01-04")
        assert con.sql("SELECT sum(id) FROM late").fetchall() == [(9,)]
    assert set(copied()) == {"partition=2026-01-04", "partition=2026-01-05"}
    before = copied()
    assert ids(Lake(remote.root)) == [1, 2, 3, 4, 5]
    assert before.items() <= copied().items(), "what is here is not got again"


def test_a_forked_child_reads_and_writes_it_after_its_parent_did(remote: Lake) -> None:
    remote.replace(TABLE, "2026-01-01", rows(1))
    script = f"""
        import os
        from include.lake.tables import Lake
        import pyarrow as pa
        if pid := os.fork():
            raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        lake = Lake({remote.root!r})
        lake.replace({TABLE!r}, "2026-01-02", pa.table({{"id": pa.array([2], pa.int64())}}))
        assert sorted(lake.read({TABLE!r})["id"].to_pylist()) == [1, 2]
        os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        timeout=60,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()[-500:]
    assert ids(remote) == [1, 2]


def test_an_old_token_is_refused_by_the_storage(remote: Lake) -> None:
    stale = Lake(remote.root)
    remote.replace(TABLE, "2026-01-01", rows(1), fence=fence(1))
    stale.read(TABLE)  # it has seen the table before the newer run came
    remote.replace(TABLE, "2026-01-01", rows(2), fence=fence(2))
    with pytest.raises(Busy, match="newer run"):
        stale.replace(TABLE, "2026-01-01", rows(3), fence=fence(1))
    assert ids(remote) == [2]


def test_writers_of_different_partitions_all_get_through(remote: Lake) -> None:
    keys = [f"2026-01-0{day}" for day in range(1, 7)]

    def write(key: str) -> int:
        return Lake(remote.root).replace(TABLE, key, rows(int(key[-2:])), fence=fence(1, key))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, keys))
    assert ids(remote) == [1, 2, 3, 4, 5, 6]


WRITER = """
import sys
import pyarrow as pa
from include.errors import Busy
from include.lake.commits import Fence
from include.lake.tables import Lake
lake, token = Lake(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
won = 0
for number in range(int(sys.argv[3])):
    rows = pa.table({"id": pa.array([token * 1000 + number] * 50, pa.int64())})
    try:
        lake.replace("u/raw/a", "2026-01-01", rows, fence=Fence("stage/key", token, lambda: None))
        won += 1
        print("wrote", flush=True)
    except Busy:
        break
print(won, flush=True)
"""


def start_writer(lake: Lake, token: int, times: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, lake.root, str(token), str(times)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_of_two_processes_that_write_a_partition_the_newer_token_stays(remote: Lake) -> None:
    remote.replace(TABLE, "2026-01-01", rows(0))
    writers = [start_writer(remote, token, 6) for token in (1, 2)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    answers = [writer.communicate(timeout=90)[0].split() for writer in writers]
    assert answers[1][-1] == "6", "the newer one is refused by nobody"
    found = ids(remote)
    assert found == [2005] * 50, "one writer's rows, whole, and the newer one's"
    with pytest.raises(Busy):
        remote.replace(TABLE, "2026-01-01", rows(3), fence=fence(1))


def test_a_writer_that_is_killed_leaves_the_partition_whole(remote: Lake) -> None:
    remote.replace(TABLE, "2026-01-01", rows(0))
    for number in range(4):
        writer = start_writer(remote, 1, 1000)
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
        writer.stdout.readline()
        time.sleep(0.013 * number)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        found = ids(Lake(remote.root))
        assert len(found) == 50, found
        assert len(set(found)) == 1, "all of one commit"
    remote.replace(TABLE, "2026-01-01", rows(7), fence=fence(2))
    assert ids(remote) == [7]


def test_a_vacuum_leaves_what_is_pinned_and_what_is_there_now(remote: Lake) -> None:
    versions = [remote.replace(TABLE, "2026-01-01", rows(number)) for number in range(4)]
    assert tables_below(remote, "u") == [TABLE]
    unneeded = find_unneeded(remote, TABLE, lambda: [versions[1]], hours=0)
    assert unneeded is not None
    assert len(unneeded.files) == 2
    assert unneeded.bytes > 0
    remove_unneeded(remote, unneeded, hours=0)
    assert find_unneeded(Lake(remote.root), TABLE, lambda: [versions[1]], hours=0) is None
    fresh = Lake(remote.root)
    assert (ids(fresh), ids(fresh, version=versions[1])) == ([3], [1])
    with pytest.raises(SourceError, match="is gone, though the table names it"):
        ids(fresh, version=versions[2])


def test_a_table_that_grows_is_appended_found_compacted_expired_and_cleaned(remote: Lake) -> None:
    table = AppendedTable(remote, "u/predictions", key="key", statistics=["key"])

    def append(day: str, *keys: str) -> None:
        body = pa.table({"key": list(keys), "partition": [day] * len(keys)})
        table.append(body.schema, lambda: iter(body.to_batches()), fence(1, "import"))

    append("2026-01-01", "a", "b")
    append("2026-01-01", "c")
    append("2026-01-02", "d")
    assert table.held(["a", "c", "x"]) == {"a", "c"}
    assert table.compact("2026-01-02", fence(1, "tidy")) == ["2026-01-01"]
    assert table.expire("2026-01-02", fence(1, "tidy")) == {"2026-01-01": 3}
    assert remote.read("u/predictions")["key"].to_pylist() == ["d"]
    assert table.clean(hours=0) == 3
    assert table.held(["a", "d"]) == {"d"}


def test_copies_that_nobody_uses_go_and_those_in_use_stay(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    now = time.time()
    for name, hours in (("new", 0), ("recent", 3), ("yesterday", 20), ("old", 50)):
        path = folder / name
        path.write_bytes(b"x" * 100)
        os.utime(path, (now - hours * 3600,) * 2)
    assert remove_unused(folder, 1000) == 100, "unused for two days"
    assert remove_unused(folder, 250) == 100, "more than may be kept: the oldest"
    assert sorted(path.name for path in folder.iterdir()) == ["new", "recent"]
    assert remove_unused(folder, 1) == 0, "a query may be reading these"


def test_a_sweep_that_was_just_made_is_not_made_again(tmp_path: Path) -> None:
    kept = copies.Copies("s3://b/lake", tmp_path / "copies", 1)
    kept.sweep()
    assert not (tmp_path / "copies").exists(), "nothing to sweep makes no folder"
    (tmp_path / "copies").mkdir()
    old = tmp_path / "copies" / "old"
    for is_left in (False, True):
        old.write_text("x")
        os.utime(old, (0, 0))
        kept.sweep()
        assert old.exists() == is_left


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../../x", "s3://other/x"])
def test_a_log_that_names_files_outside_of_its_table_is_refused(tmp_path: Path, name: str) -> None:
    kept = copies.Copies("s3://b/lake", tmp_path / "copies", 1)
    with pytest.raises(SourceError, match="outside of the table"):
        kept.get(TABLE, {name: 3})


def test_no_error_of_a_store_shows_a_key_or_a_signature() -> None:
    error = OSError(
        "\x1b[31m↳\x1b[0m GET https://a.blob/c/x?sv=1&sig=abc%3D failed "
        "for AKEY-12345678 by s3cret-key"
    )
    given = {
        "AZURE_STORAGE_CONNECTION_STRING": "AccountName=acc;AccountKey=AKEY-12345678;",
        "AWS_SECRET_ACCESS_KEY": "s3cret-key",
    }
    assert explain(error, given) == "GET https://a.blob/c/x failed for *** by ***"
    by_proxy = OSError("no way to a.blob by http://anna:pass-word@proxy:3128")
    assert explain(by_proxy, given) == "no way to a.blob by http://***@proxy:3128"
    assert shown("s3://key:secret@bucket/x?sig=1") == "s3://***@bucket/x"


def test_a_damaged_copy_is_got_again(s3_store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(copies, "_place", [])
    keep_copies(tmp_path / "copies", 1 << 30)
    lake = Lake(f"{s3_store.uri}/lake")
    lake.replace(TABLE, "2026-01-01", rows(1, 2))
    (path,) = lake.files(TABLE)
    Path(path).write_bytes(b"cut off")
    assert ids(lake) == [1, 2]
    assert Path(path).is_relative_to(copies_of(lake.root).folder("u"))
    assert (tmp_path / "copies").stat().st_mode & 0o077 == 0, "it holds people's data"


def test_a_disk_without_room_for_copies_is_named(s3_store, tmp_path: Path, monkeypatch) -> None:
    lake = Lake(f"{s3_store.uri}/lake")
    lake.replace(TABLE, "2026-01-01", rows(1, 2))
    full = Path("/dev/full")

    def without_room(path: Path, **_: object) -> object:
        from contextlib import nullcontext

        return nullcontext(full)

    monkeypatch.setattr(copies, "_place", [(tmp_path / "copies", 1 << 30)])
    monkeypatch.setattr(copies, "written_aside", without_room)
    with pytest.raises(SourceError, match=r"copies.*No space left.*free space there"):
        ids(lake)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(copies, "_place", [(tmp_path / "file" / "copies", 1 << 30)])
    with pytest.raises(SourceError, match=r"file/copies: copies of the lake's files cannot be"):
        ids(lake)


def test_a_store_that_cannot_be_used_is_named_with_the_remedy(monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"ftp://x/y/u/raw/a: no store of ftp://.*s3, s3a, az"):
        Lake("ftp://x/y").exists(TABLE)
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    with pytest.raises(ConfigError, match="overwrite each other's commits"):
        Lake("s3://x/y").replace(TABLE, "2026-01-01", rows(1))
    with pytest.raises(ConfigError, match=r"gs:// needs gcsfs, which is not installed"):
        filesystem("gs://x/y")
    assert delta_options("/a/folder") is None
