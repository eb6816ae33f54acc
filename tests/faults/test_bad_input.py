"""Bad input: each fault is injected into a file beside a partition that is on record, and must
leave that record as it is.
"""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.errors import EvergreenError, RestatementRefused, SourceError
from tests.builders.intake import COLUMNS, GOOD, HEAD, Intake
from tests.builders.stopwatch import Stopwatch

KEY, NEXT = "2026-01-01", "2026-01-02"
LINE = "3,1,2026-01-02T10:00:00Z,2026-01-02T10:00:00Z,30,1\n"


def parquet(folder: Path, rows: int = 2_000) -> bytes:
    text = [str(index) for index in range(rows)]
    at = ["2026-01-02T10:00:00Z"] * rows
    table = pa.table(
        dict(zip(HEAD.strip().split(","), [text, text, at, at, text, ["1"] * rows], strict=True))
    )
    pq.write_table(table, folder / "x.parquet")
    return (folder / "x.parquet").read_bytes()


def one_day(home: Path) -> Intake:
    """Return an installation with one day on record."""
    intake = Intake(home, path="{partition}.*")
    intake.put(
        HEAD + "".join(line for line in GOOD.splitlines(keepends=True) if KEY in line), f"{KEY}.csv"
    )
    intake.validate(KEY)
    return intake


@pytest.fixture
def made(tmp_path: Path) -> Intake:
    """An installation of the test's own with one day on record; the next day's file is the
    test's.
    """
    return one_day(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Intake:
    """An installation that no refused file may change."""
    return one_day(tmp_path_factory.mktemp("shared"))


def refused(
    made: Intake,
    said: str,
    error: type[EvergreenError] = SourceError,
    key: str = NEXT,
    stage: str = "ingest_data",
) -> str:
    """Run the stage; it must be refused with a message that names the file, and change no table."""
    before, digests, stopwatch = made.versions(), made.digests(), Stopwatch()
    with pytest.raises(error, match=said) as caught:
        made.run(stage, key)
    assert stopwatch.seconds < 60
    assert made.versions() == before
    assert made.digests() == digests
    assert made.records.audit.entries("shop", action="stage.refused")
    assert made.records.routes.get("shop").generation == 0
    message = str(caught.value)
    assert "Traceback" not in message
    assert len(message) < 4_000
    return message


def damaged_gzip() -> bytes:
    packed = bytearray(gzip.compress((HEAD + LINE * 10_000).encode(), mtime=0))
    packed[-6] ^= 1
    return bytes(packed)


def cut_parquet(folder: Path) -> bytes:
    return parquet(folder)[:-200]


def scrambled_parquet(folder: Path) -> bytes:
    data = bytearray(parquet(folder))
    data[100:2_000] = os.urandom(1_900)
    return bytes(data)


FILES = {
    "36 truncated gzip": (
        "csv.gz",
        gzip.compress(random.Random(7).randbytes(200_000).hex().encode(), mtime=0)[:-5_000],
        r"cut off at byte \d+",
    ),
    "36 bad CRC": (
        "csv.gz",
        damaged_gzip(),
        r"damaged gzip file, at byte \d+ .*incorrect data check",
    ),
    "36 truncated zstd": (
        "csv.zst",
        pa.compress(b"a,b\n" * 90_000, codec="zstd", asbytes=True)[:-9],
        "damaged zstd",
    ),
    "53 mojibake": (
        "csv",
        HEAD.encode() + LINE.encode().replace(b"30", b"caf\xe9"),
        r"not UTF-8 at offset \d+",
    ),
    "53 UTF-16": ("csv", (HEAD + LINE).encode("utf-16"), "is UTF-16"),
    "53 NUL": ("csv", (HEAD + LINE.replace("30", "3\0")).encode(), r"NUL byte at offset \d+"),
    "53 cell of 10 MB": (
        "csv",
        (HEAD + LINE.replace("30", "x" * 10_000_000)).encode(),
        r"line 2 is longer than 4 MB",
    ),
    "53 quoted cell of 2 MB": (
        "csv",
        (HEAD + LINE.replace("30", '"' + "x" * 2_000_000 + '"')).encode(),
        "cell of 2000000 bytes",
    ),
    "53 10,000 columns": (
        "csv",
        (",".join(f"c{index}" for index in range(10_000)) + "\n").encode(),
        "10000 columns; at most",
    ),
    "53 endless header": ("csv", b"x" * 600_000, "first line of more than 256 KB"),
    "53 endless quote": (
        "csv",
        (HEAD + LINE.replace("30", '"30') + LINE * 50).encode(),
        "line 2 opens a quote",
    ),
    "54 gzip bomb": (
        "csv.gz",
        gzip.compress(HEAD.encode() + b"0" * 200_000_000, mtime=0),
        "more than 200 times its size",
    ),
    "37 duplicated column": (
        "csv",
        (HEAD.strip() + ",paid\n" + LINE).encode(),
        "has the column 'paid' twice",
    ),
    "37 column without a name": (
        "csv",
        (HEAD.strip() + ",\n" + LINE).encode(),
        "no line that could be read as its 7 columns",
    ),
    "no text at all": ("csv", b"PK\x03\x04" + os.urandom(500), "zip file, or one that was cut off"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_damaged_or_hostile_file_is_refused_and_the_lake_is_unchanged(
    shared: Intake, fault: str
) -> None:
    """Faults 36, 37, 53, 54."""
    ending, content, said = FILES[fault]
    path = shared.put(content, f"{NEXT}.{ending}")
    try:
        message = refused(shared, said)
    finally:
        path.unlink()
    assert message.startswith(f"{NEXT}.{ending}: ")
    assert shared.result("ingest_data", NEXT).state == "failed"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_parquet, r"ends at byte \d+ without a valid footer"),
        (scrambled_parquet, "cannot be read"),
    ],
)
def test_a_damaged_parquet_file_is_refused_then_its_mended_form_is_taken(
    made: Intake, damage, said: str
) -> None:  # type: ignore[no-untyped-def]
    """Fault 36."""
    made.put(damage(made.folder), f"{NEXT}.parquet")
    (made.folder / "x.parquet").unlink()
    refused(made, said)
    made.put(parquet(made.folder, 50), f"{NEXT}.parquet")
    assert made.ingest(NEXT).outputs["sources"]["orders"]["rows"] == 50


@pytest.mark.parametrize("content", ["", HEAD, HEAD.strip(), None])
def test_an_empty_day_is_what_the_policy_says(made: Intake, content: str | None) -> None:
    """Fault 35: an empty file, a header alone, no file for a valid day."""
    if content is not None:
        made.put(content, f"{NEXT}.csv")
    report = made.ingest(NEXT)
    assert report.state == "blocked"
    assert "no rows of orders arrived in 2026-01-02" in report.reason
    made.define(path="{partition}.*", more="empty: allow")
    assert made.validate(NEXT).state == "done"
    assert made.curated(NEXT) == []
    assert made.records.routes.get("shop").generation == 0


@pytest.mark.parametrize(
    ("head", "state"),
    [
        (HEAD, "done"),
        ("paid,amount,created_timestamp,event_timestamp,customer_id,order_id\n", "done"),
        (HEAD.replace("amount", "sum"), "blocked"),
        (HEAD.replace("amount", "amount,extra"), "blocked"),
        (HEAD.replace(",amount", ""), "blocked"),
    ],
)
def test_columns_are_found_by_name_never_by_place(made: Intake, head: str, state: str) -> None:
    """Fault 37: renamed, missing, extra, reordered."""
    values = dict(zip(HEAD.strip().split(","), LINE.strip().split(","), strict=True))
    made.put(
        head + ",".join(values.get(name, "77") for name in head.strip().split(",")) + "\n",
        f"{NEXT}.csv",
    )
    report = made.validate(NEXT)
    assert report.state == state
    rows = made.curated(NEXT)
    assert [(row["order_id"], row["amount"], row["paid"]) for row in rows] == (
        [(3, 30.0, 1)] if state == "done" else []
    )
    assert ("columns differ from the contract" in report.reason) is (state == "blocked")


def test_bad_rows_up_to_max_bad_are_counted_and_above_it_block(made: Intake) -> None:
    """Fault 37a: 1 of 100 passes, 2 of 100 block."""
    lines = [
        f"{index},{index},2026-01-02T10:00:00Z,2026-01-02T10:00:00Z,1,1\n" for index in range(100)
    ]
    made.put(HEAD + "".join(lines).replace("\n5,5,", "\nfive,5,"), f"{NEXT}.csv")
    report = made.validate(NEXT)
    assert (report.state, report.outputs["sources"]["orders"]["quarantined"]) == ("done", 1)
    made.put(
        HEAD + "".join(lines).replace("\n5,5,", "\nfive,5,").replace("\n7,7,", "\nseven,7,"),
        f"{NEXT}.csv",
    )
    made.ingest(NEXT, restate="second delivery")
    report = made.run("validate_data", NEXT)
    assert report.state == "blocked"
    assert (
        "2 of 100 rows are bad, more than max_bad 1.00%: order_id: not_int64 (2 rows, such as "
        "'five', 'seven'" in report.reason
    )
    assert made.rules(NEXT) == {6: "order_id: not_int64", 8: "order_id: not_int64"}


def test_lines_that_are_no_rows_go_to_quarantine(made: Intake) -> None:
    """Fault 37a, rows with too few and too many cells."""
    made.define(path="{partition}.*", more="max_bad: 0.7")
    made.put(HEAD + LINE + "4,1\n" + LINE.strip() + ",9,9\n", f"{NEXT}.csv")
    assert made.validate(NEXT).outputs["sources"]["orders"]["quarantined"] == 2
    assert made.rules(NEXT) == {2: "malformed_row", 3: "malformed_row"}


@pytest.mark.parametrize("value", ["abc", "1e400", "1,5", "1 000", "NaN", "inf", "0x1F", "--1"])
def test_a_column_that_changed_its_type_blocks_with_samples(made: Intake, value: str) -> None:
    """Faults 38 and 39."""
    made.put(HEAD + LINE.replace("30", f'"{value}"'), f"{NEXT}.csv")
    report = made.validate(NEXT)
    assert report.state == "blocked"
    assert "amount: not_f" in report.reason
    assert value in report.reason


@pytest.mark.parametrize(
    "event",
    [
        "1970-01-01T00:00:00Z",
        "9999-12-31T00:00:00Z",
        "2262-04-12T00:00:00Z",
        "2026-01-03T00:00:00Z",
        "1600-01-01T00:00:00Z",
    ],
)
def test_impossible_times_are_quarantined(made: Intake, event: str) -> None:
    """Fault 44."""
    made.define(path="{partition}.*", more="max_bad: 0.5")
    made.put(
        HEAD + LINE + LINE.replace("3,1,2026-01-02T10:00:00Z", f"4,1,{event}", 1), f"{NEXT}.csv"
    )
    assert made.validate(NEXT).state == "done"
    assert made.rules(NEXT)[2].startswith("event_timestamp: ")
    assert [row["order_id"] for row in made.curated(NEXT)] == [3]


def test_offsets_are_normalised_and_mixed_kinds_of_time_are_refused(made: Intake) -> None:
    """Fault 43."""
    made.put(
        HEAD + LINE + LINE.replace("3,1,2026-01-02T10:00:00Z", "4,2,2026-01-02T15:30:00+05:30", 1),
        f"{NEXT}.csv",
    )
    made.validate(NEXT)
    assert len({row["event_timestamp"] for row in made.curated(NEXT)}) == 1
    made.put(
        HEAD + LINE + LINE.replace("3,1,2026-01-02T10:00:00Z", "4,2,2026-01-02T10:00:00", 1),
        f"{NEXT}.csv",
    )
    made.ingest(NEXT, restate="other file")
    report = made.run("validate_data", NEXT)
    assert report.state == "blocked"
    assert "event_timestamp: mixed_time_zones" in report.reason


def test_a_closed_day_keeps_its_digest_whatever_comes_late(made: Intake) -> None:
    """Faults 41 and 42: a late row and a correction land in the partition in which they came."""
    before = {at: value for at, value in made.digests().items() if at[1] == KEY}
    late = (
        "9,1,2026-01-01T09:00:00Z,2026-01-02T09:00:00Z,5,1\n"
        "1,1,2026-01-01T10:00:00Z,2026-01-02T09:00:00Z,999,1\n"
    )
    made.put(HEAD + LINE + late, f"{NEXT}.csv")
    assert made.validate(NEXT).state == "done"
    assert {at: value for at, value in made.digests().items() if at[1] == KEY} == before
    assert sorted((row["order_id"], row["amount"]) for row in made.curated(NEXT)) == [
        (1, 999.0),
        (3, 30.0),
        (9, 5.0),
    ]
    made.put(HEAD + late, f"{KEY}.csv")
    refused(made, r"recorded with other rows.*--restate", RestatementRefused, KEY)


def test_sql_in_names_and_values_has_no_effect(tmp_path: Path) -> None:
    """Fault 56."""
    evil = "x'); DROP TABLE raw; --"
    columns = (
        COLUMNS
        + "\n      note: {type: string, header: 'a\"; DROP TABLE raw; --', values: [\""
        + evil
        + '"], regex: "x.*"}'
    )
    made = Intake(tmp_path, path="*.csv", columns=columns, more="extra: ignore")
    head = HEAD.strip() + ',"a""; DROP TABLE raw; --","b\'; DROP TABLE raw; --"\n'
    made.put(head + LINE.strip() + f',"{evil}","{evil}"\n', "o'; DROP TABLE raw; --.csv")
    assert made.validate(NEXT).outputs["verdict"] == "pass"
    (row,) = made.curated(NEXT)
    assert row["note"] == evil
    (raw,) = made.raw(NEXT)
    assert raw["source_file"] == "o'; DROP TABLE raw; --.csv"


def test_formulas_and_markup_stay_text_and_reach_no_page(made: Intake) -> None:
    """Fault 57, as far as these stages write files."""
    evil = "=cmd|' /C calc'!A0<script>alert(1)</script>"
    made.define(path="{partition}.*", columns=COLUMNS + "\n      note: {type: string}")
    made.put(HEAD.strip() + f',note,"{evil}"\n' + LINE.strip() + f',"{evil}",1\n', f"{NEXT}.csv")
    report = made.validate(NEXT)
    assert report.state == "blocked"
    assert repr(evil) in report.reason
    assert "<script>alert" not in (Path(report.outputs["report"]) / "index.html").read_text()
    made.define(
        path="{partition}.*", columns=COLUMNS + "\n      note: {type: string}", more="extra: ignore"
    )
    made.run("validate_data", NEXT)
    assert made.curated(NEXT)[0]["note"] == evil


PATHS = """
../secret.csv
a/../../secret.csv
/etc/passwd
%2e%2e/secret.csv
%252e%252e/secret.csv
..\\\\secret.csv
a\\0b.csv
~/secret.csv
{data_dir}/../secret.csv
file:///etc/passwd
simplecache::file:///etc/passwd
{home}/x.csv
"""


@pytest.mark.parametrize("path", PATHS.split())
def test_a_path_that_leaves_its_folder_is_refused(shared: Intake, path: str) -> None:
    """Fault 59: parents, absolute paths, backslash, NUL, URL-encoded once and twice, other
    schemes.
    """
    (shared.folder.parent / "secret.csv").write_text(HEAD + LINE)
    shared.define(path=path)
    try:
        refused(shared, "source orders: path .* is refused")
    finally:
        shared.define(path="{partition}.*")


def test_links_that_leave_the_folder_and_what_is_no_file_are_refused(
    made: Intake, tmp_path: Path
) -> None:
    """Fault 59."""
    secret = tmp_path / "secret.csv"
    secret.write_text(HEAD + LINE)
    link = made.folder / f"{NEXT}.csv"
    link.symlink_to(secret)
    refused(made, "is a link that leaves")
    link.unlink()
    (made.folder / "inside").mkdir()
    (made.folder / "outside").symlink_to(tmp_path)
    made.define(path="outside/secret.csv")
    refused(made, "is a link that leaves")
    made.define(path="{partition}.*")
    os.mkfifo(link)
    refused(made, "is no regular file")
    link.unlink()
    link.symlink_to(link)
    refused(made, "cannot be read")


def test_a_partition_on_record_survives_a_file_that_is_damaged_afterwards(made: Intake) -> None:
    """The record stands, and validation answers from it, while the source cannot be read."""
    made.put(b"\x1f\x8b" + os.urandom(50), f"{KEY}.csv")
    refused(made, r"damaged|cut off", SourceError, KEY)
    assert made.result("ingest_data", KEY).state == "done"
    assert made.run("validate_data", KEY).reused is True
