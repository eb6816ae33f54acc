"""Files as they are: dialects that a source declares, those that are found out for a draft, and
refusals with a remedy.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.config.use_case_sources import Source
from include.errors import SourceError
from include.ingestion.dialects import guess_sheet
from include.ingestion.file_reader import FileReader
from include.ingestion.files import files_of
from include.ingestion.sources import dialect_of
from tests.ingestion.test_sources import HEADER, ROW, case, texts

DECLARED = ["id", "day", "amount", "note"]
NAMES = "id,day,amount,note\n"
LINES = [f"{n},2025-01-{n % 28 + 1:02},{n}.5,word{n % 3}\n" for n in range(40)]
WHOLE = NAMES + "".join(LINES)


@pytest.fixture(scope="module")
def reader() -> Iterator[FileReader]:
    with FileReader() as made:
        yield made


def read(
    reader: FileReader,
    path: Path,
    content: str | bytes,
    *,
    kind: str = "csv",
    declared: list[str] | None = None,
    **fields: Any,
) -> tuple[dict[str, Any], list[list[str | None]]]:
    """Return the child's answer and the rows; without fields the dialect is guessed."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    given = {
        "path": "x",
        "key": ["id"],
        "arrival": "event + 0s",
        "columns": {"id": {"type": "string"}},
    }
    wanted = (
        dialect_of(Source.model_validate({**given, **fields}))
        if fields or declared is not None
        else None
    )
    answer, table = reader.read(path, path.name, kind, declared or [], wanted)
    body = table.select([name for name in table.column_names if name.startswith("c")])
    return answer, [list(row.values()) for row in body.to_pylist()]


def found(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what differs from a plain CSV."""
    plain = {"separator": ",", "header": True, "skip": 0, "escape": "double", "encoding": "utf-8"}
    plain["quote"] = '"'
    return {name: value for name, value in answer["dialect"].items() if value != plain[name]}


SAME = [["0", "2025-01-01", "0.5", "word0"], ["39", "2025-01-12", "39.5", "word0"]]


@pytest.mark.parametrize(
    ("content", "expected", "names"),
    [
        (WHOLE, {}, DECLARED),
        (WHOLE.replace(",", ";"), {"separator": ";"}, DECLARED),
        (WHOLE.replace(",", "\t"), {"separator": "\t"}, DECLARED),
        (WHOLE.replace(",", "|"), {"separator": "|"}, DECLARED),
        (WHOLE.replace(",", " "), {"separator": " "}, DECLARED),
        (WHOLE.replace(",", "   ").replace("\n", "  \n"), {"separator": " "}, DECLARED),
        ("".join(LINES), {"header": False}, ["c1", "c2", "c3", "c4"]),
        (
            "".join(LINES).replace(",", "  "),
            {"header": False, "separator": " "},
            ["c1", "c2", "c3", "c4"],
        ),
        ("Orders, of the shop; on request\n" + WHOLE, {"skip": 1}, DECLARED),
        ("Report\n\n# made today\n" + WHOLE, {"skip": 3}, DECLARED),
        (
            "|1x3 Cross validator\n" + "".join(LINES),
            {"skip": 1, "header": False},
            ["c1", "c2", "c3", "c4"],
        ),
        (WHOLE.encode("utf-16"), {"encoding": "utf-16"}, DECLARED),
        (gzip.compress(WHOLE.encode(), mtime=0), {}, DECLARED),
        (gzip.compress(WHOLE.encode("utf-16"), mtime=0), {"encoding": "utf-16"}, DECLARED),
        ("\ufeff" + WHOLE, {}, DECLARED),
        (NAMES + "".join(LINES).replace("\n", ",\n"), {}, DECLARED),
        (
            "Orders\n" + (NAMES + "".join(LINES).replace("\n", ",\n")).replace(",", ";"),
            {"separator": ";", "skip": 1},
            DECLARED,
        ),
        (WHOLE.replace("id,", ",", 1), {}, ["Unnamed: 0", "day", "amount", "note"]),
        (WHOLE.replace("\n", "\r"), {}, DECLARED),
        (
            "".join(
                line[:-1] + ("\r\n" if n % 2 else "\n") for n, line in enumerate([NAMES, *LINES])
            ),
            {},
            DECLARED,
        ),
        (
            "".join(
                line[:-1] + ("\n" if n > 20 else "\r\n") for n, line in enumerate([NAMES, *LINES])
            ),
            {},
            DECLARED,
        ),
        (WHOLE.replace("\n", "\r\r\n"), {}, DECLARED),
    ],
)
def test_a_dialect_is_found_out_and_no_row_is_lost(
    reader: FileReader,
    tmp_path: Path,
    content: str | bytes,
    expected: dict[str, Any],
    names: list[str],
) -> None:
    answer, body = read(reader, tmp_path / "t.csv", content)
    assert (found(answer), answer["columns"]) == (expected, names)
    assert (len(body), [body[0], body[-1]]) == (40, SAME)


def test_a_found_dialect_declared_reads_the_same(reader: FileReader, tmp_path: Path) -> None:
    for content in (
        WHOLE.replace(",", ";"),
        "t\n" + "".join(LINES).replace(",", "  "),
        WHOLE.encode("utf-16"),
    ):
        answer, body = read(reader, tmp_path / "t.csv", content)
        again, same = read(
            reader, tmp_path / "t.csv", content, declared=DECLARED, **answer["dialect"]
        )
        assert (again["columns"], same) == (answer["columns"], body)


def test_numbers_with_a_decimal_comma_do_not_make_the_comma_a_separator(
    reader: FileReader, tmp_path: Path
) -> None:
    lines = "".join(f"{n},5;{n * 2},25;{n},0\n" for n in range(30))
    answer, body = read(reader, tmp_path / "t.csv", lines)
    assert (found(answer), body[1]) == ({"separator": ";", "header": False}, ["1,5", "2,25", "1,0"])
    answer, body = read(reader, tmp_path / "t.csv", "a;b;c\n" + lines)
    assert (found(answer), answer["columns"], len(body)) == (
        {"separator": ";"},
        ["a", "b", "c"],
        30,
    )


def test_blanks_within_values_that_tabs_part_separate_nothing(
    reader: FileReader, tmp_path: Path
) -> None:
    """Each line has as many words as the others, and more of them than values."""
    rows = [f"{n}\t2025-01-01 00:00:{n:02}\t{n}.5\tAnn Lee\n" for n in range(30)]
    answer, body = read(reader, tmp_path / "t.csv", NAMES.replace(",", "\t") + "".join(rows))
    assert (found(answer), answer["columns"]) == ({"separator": "\t"}, DECLARED)
    assert body[1] == ["1", "2025-01-01 00:00:01", "1.5", "Ann Lee"]
    # One tab before the last of many values, as in a table that was aligned by blanks.
    cars = "".join(f'18.0   {n}   307.0  130.0  3504.  12.0  70\t"car {n}"\n' for n in range(20))
    assert found(read(reader, tmp_path / "t.csv", cars)[0])["separator"] == " "


def test_years_as_names_and_tables_of_words_keep_their_header(
    reader: FileReader, tmp_path: Path
) -> None:
    wide = "country,2019,2020\n" + "".join(f"c{n},{n},{n + 1}\n" for n in range(9))
    assert read(reader, tmp_path / "t.csv", wide)[0]["columns"] == ["country", "2019", "2020"]
    # A value that is missing in the first row names no column.
    for token in ("?", "NA", "(null)", "\\N"):
        lines = f"5,{token},x\n" + "".join(f"{n},{n}.5,y\n" for n in range(30))
        assert read(reader, tmp_path / "t.csv", lines)[0]["columns"] == ["c1", "c2", "c3"]
    words = "colour,size\n" + "red,big\nblue,small\n" * 5
    assert read(reader, tmp_path / "t.csv", words)[0]["columns"] == ["colour", "size"]
    assert read(reader, tmp_path / "t.csv", words.replace("colour,size", "red,small"))[0][
        "columns"
    ] == ["c1", "c2"]


def test_single_quotes_around_values_are_found_out_and_declared(
    reader: FileReader, tmp_path: Path
) -> None:
    lines = [f"{n},'2025-01-01',{n}.5,'it''s {n}, or more'\n" for n in range(20)]
    content = "'id','day','amount','note'\n" + "".join(lines)
    answer, body = read(reader, tmp_path / "t.csv", content)
    assert (found(answer), answer["columns"]) == ({"quote": "'"}, DECLARED)
    assert body[7] == ["7", "2025-01-01", "7.5", "it's 7, or more"]
    assert read(reader, tmp_path / "t.csv", content, declared=DECLARED, quote="'")[1] == body
    # A broken line keeps its number, and mixed line ends do not hide what stands in quotes.
    broken = content.replace("\n3,", "\n3,3,\r\n\n3,", 1).replace("it''s 9", "it''s\r9")
    answer, body = read(reader, tmp_path / "t.csv", broken, declared=DECLARED, quote="'")
    assert (len(body), body[3], body[10][3]) == (21, [None] * 4, "it's\r9, or more")
    # An apostrophe at the beginning of a word marks no value.
    plain = NAMES + "".join(f"{n},2025-01-01,1,'tis {n}\n" for n in range(20))
    answer, body = read(reader, tmp_path / "t.csv", plain)
    assert (found(answer), body[0][3]) == ({}, "'tis 0")


@pytest.mark.parametrize("separator", [",", "\t"])
def test_quotes_that_are_letters_mark_no_values(
    reader: FileReader, tmp_path: Path, separator: str
) -> None:
    """Taken for marks, the first would open a value that the second closes three lines later."""
    lines = [NAMES, *LINES]
    lines[3], lines[6] = lines[3].replace("word", '"word'), lines[6].replace("\n", '"\n')
    content = "".join(lines).replace(",", separator)
    answer, body = read(reader, tmp_path / "t.csv", content)
    assert answer["dialect"]["quote"] == "none"
    assert (len(body), body[2][3], body[5][3]) == (40, '"word2', 'word2"')
    declared: dict[str, Any] = {"declared": DECLARED, "separator": separator}
    assert read(reader, tmp_path / "t.csv", content, quote="none", **declared)[1] == body
    with pytest.raises(SourceError, match=r"3 more lines .* column 'note' of row 3.* quote: none"):
        read(reader, tmp_path / "t.csv", content, **declared)
    blanks = "".join(lines).replace(",", "  ").replace("\n", "\r\n", 3)
    declared = {"declared": DECLARED, "separator": " ", "quote": "none"}
    assert read(reader, tmp_path / "t.csv", blanks, **declared)[1] == body


def test_a_text_of_as_many_words_on_every_line_is_one_column(
    reader: FileReader, tmp_path: Path
) -> None:
    content = NAMES + "".join(f"{n},2025-01-01,1,a{' word' * 40}\n" for n in range(20))
    assert read(reader, tmp_path / "t.csv", content)[0]["columns"] == DECLARED


def test_a_backslash_before_a_quote_is_found_out_declared_or_named(
    reader: FileReader, tmp_path: Path
) -> None:
    content = NAMES + "".join(f'{n},2025-01-01,1,"said \\"yes\\", twice"\n' for n in range(20))
    answer, body = read(reader, tmp_path / "t.csv", content)
    assert (found(answer), body[0][3]) == ({"escape": "backslash"}, 'said "yes", twice')
    assert (
        read(reader, tmp_path / "t.csv", content, declared=DECLARED, escape="backslash")[1] == body
    )
    with pytest.raises(SourceError, match="write escape: backslash"):
        read(reader, tmp_path / "t.csv", content, declared=DECLARED)
    folders = NAMES + '1,2025-01-01,1,"C:\\dir\\"\n2,2025-01-01,1,"say ""a"""\n' + LINES[3]
    answer, body = read(reader, tmp_path / "t.csv", folders)
    assert (found(answer), body[0][3], body[1][3]) == ({}, "C:\\dir\\", 'say "a"')


def test_line_breaks_in_quotes_stay_where_line_ends_are_mixed(
    reader: FileReader, tmp_path: Path
) -> None:
    content = (
        'id,day,amount,note\r\n1,2025-01-01,1,"two\r\nlines"\n2,2025-01-01,1,"three\n'
        'more"\r\n3,2025-01-01,1,x\n'
    )
    body = read(reader, tmp_path / "t.csv", content, declared=DECLARED)[1]
    assert [row[3] for row in body] == ["two\r\nlines", "three\nmore", "x"]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_letters_of_other_encodings_are_found_out_declared_or_named(
    reader: FileReader, tmp_path: Path, encoding: str
) -> None:
    content = WHOLE.replace("word1", "Köln").encode(encoding)
    answer, body = read(reader, tmp_path / "t.csv", content)
    assert (found(answer), body[1][3]) == ({"encoding": "cp1252"}, "Köln")
    assert (
        read(reader, tmp_path / "t.csv", content, declared=DECLARED, encoding=encoding)[1][1][3]
        == "Köln"
    )
    with pytest.raises(SourceError, match=r"not UTF-8 at offset \d+ .* write encoding: cp1252"):
        read(reader, tmp_path / "t.csv", content, declared=DECLARED)
    with pytest.raises(SourceError, match="write encoding: utf-16"):
        read(reader, tmp_path / "t.csv", WHOLE.encode("utf-16"), declared=DECLARED)
    with pytest.raises(SourceError, match="utf-16-le"):
        read(reader, tmp_path / "t.csv", WHOLE.encode("utf-16-le"), declared=DECLARED)


@pytest.mark.parametrize(
    ("content", "fields", "says"),
    [
        ("Orders of the shop\n" + WHOLE, {}, r"header in line 2, it seems: write skip: 1"),
        ("a\nb\nc,d\n" + WHOLE.replace(",", ";"), {}, "header in line 4, it seems: write skip: 3"),
        (
            NAMES + "1,2\n3,4\n",
            {},
            r"no line that could be read as its 4 columns .* line 2, is '1,2'",
        ),
        ("x\ny\n" + NAMES + "1,2\n", {"skip": 2}, "the first, line 4, is '1,2'"),
        (
            NAMES + '1,2025-01-01,1,"open\n' + LINES[1],
            {},
            "opens a quote that is never closed; mend the quoting",
        ),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_refused_with_its_first_line(
    reader: FileReader, tmp_path: Path, content: str, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(SourceError, match=says):
        read(reader, tmp_path / "t.csv", content, declared=DECLARED, **fields)


def test_lines_that_are_no_rows_carry_their_number_whatever_stands_before_the_rows(
    reader: FileReader, tmp_path: Path
) -> None:
    for content, fields in (
        (NAMES + LINES[0] + "broken\n" + LINES[1], {}),
        (LINES[0] + "broken\n" + LINES[1], {"header": False}),
        ("title\n" + NAMES + LINES[0] + "broken\n" + LINES[1], {"skip": 1}),
    ):
        path = tmp_path / "t.csv"
        path.write_text(content)
        given = {
            "path": "x",
            "key": ["id"],
            "arrival": "event + 0s",
            "columns": {"id": {"type": "string"}},
            **fields,
        }
        table = reader.read(
            path, "t.csv", "csv", DECLARED, dialect_of(Source.model_validate(given))
        )[1]
        numbers = {row["row"]: row["malformed"] for row in table.to_pylist()}
        assert numbers == {1: None, 2: "broken", 3: None}


def test_one_json_array_is_read_and_broken_json_is_named(
    reader: FileReader, tmp_path: Path
) -> None:
    objects = [{"id": 12345678901234567890, "note": "a"}, {"id": 2, "note": None}]
    for text in (json.dumps(objects), "\n " + json.dumps(objects, indent=2)):
        answer, body = read(
            reader, tmp_path / "t.json", text, kind="jsonl", declared=["id", "note"]
        )
        assert (answer["columns"], body) == (
            ["id", "note"],
            [["12345678901234567890", "a"], ["2", None]],
        )
    for text, says in (
        ('[{"id": 1}', "one JSON array and is none"),
        ("{\n'id': 1\n}\n", "no line that is a JSON object"),
    ):
        with pytest.raises(SourceError, match=says):
            read(reader, tmp_path / "t.json", text, kind="jsonl", declared=["id"])


def test_an_object_that_says_a_name_twice_is_no_row(reader: FileReader, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": 1, "id": 2}\n{"id": 3}\n')
    table = reader.read(path, "t.jsonl", "jsonl", ["id"], {})[1]
    assert [(row["c0"], row["malformed"]) for row in table.to_pylist()] == [
        (None, '{"id": 1, "id": 2}'),
        ("3", None),
    ]


def test_parquet_gives_nan_as_no_value_bytes_as_text_and_leaves_nested_columns_out(
    reader: FileReader, tmp_path: Path
) -> None:
    table = pa.table(
        {
            "id": pa.array([2**64 - 1, 1], pa.uint64()),
            "x": pa.array([float("nan"), 1.5]),
            "y": pa.array([float("nan"), 2.5], pa.float32()),
            "text": pa.array([b"K\xc3\xb6ln", b"\xff"]),
            "list": [[1], []],
            "struct": [{"a": 1}, {"a": 2}],
            "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
            "amount": pa.array([1, 2], pa.int8()).cast(pa.decimal128(10, 2)),
            "code": pa.array(["a", "b"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    answer, body = reader.read(tmp_path / "t.parquet", "t.parquet", "parquet", ["id"], {})
    assert list(answer["nested"]) == ["list", "struct", "map"]
    assert answer["columns"] == ["id", "x", "y", "text", "amount", "code"]
    assert list(body.drop_columns(["row"]).to_pylist()[0].values()) == [
        "18446744073709551615",
        None,
        None,
        "Köln",
        "1.00",
        "a",
    ]
    assert body.column("c3")[1].as_py() == "\\xFF"
    many = pa.table(
        {"x": [float("nan") if number % 10 == 0 else number / 7 for number in range(1_000)]}
    )
    pq.write_table(many, tmp_path / "m.parquet")  # with statistics that say nothing of NaN
    assert (
        reader.read(tmp_path / "m.parquet", "m.parquet", "parquet", ["x"], {})[1]
        .column("c0")
        .null_count
        == 100
    )
    with pytest.raises(SourceError, match="column 'struct' holds STRUCT"):
        reader.read(tmp_path / "t.parquet", "t.parquet", "parquet", ["struct"], {})


def test_what_a_writer_leaves_beside_its_parts_is_passed_over(
    reader: FileReader, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "_temporary").mkdir(parents=True)
    for name in ("part-0.csv", "_SUCCESS", "_metadata", ".part-0.csv.crc", "_temporary/part-9.csv"):
        (out / name).write_text(f"{HEADER}\n{ROW}\n")
    from include.config.settings import Settings

    for path, expected in (
        ("out/", ["out/part-0.csv"]),
        ("out/*", ["out/part-0.csv"]),
        ("out/**/*.csv", ["out/part-0.csv"]),
        ("out/_metadata", ["out/_metadata"]),
        ("out/_temporary/*", ["out/_temporary/part-9.csv"]),
    ):
        found_files = files_of(
            "orders",
            case(tmp_path, f'path: "{path}"'),
            Settings(home=tmp_path),
            "2026-01-01",
            reader,
        )
        assert [shown for shown, _ in found_files] == expected, path


def test_a_source_declares_its_dialect(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.data").write_bytes(
        ("Köln\n" + ROW.replace(",", " ; ") + "\n").encode("cp1252")
    )
    source = "path: data/*\n    separator: ;\n    header: false\n    skip: 1\n    encoding: cp1252"
    use_case = case(tmp_path, source)
    columns = {"order_id": "c1", "amount": "c2", "event_timestamp": "c3", "created_timestamp": "c4"}
    declared = {
        name: {
            "type": "int64"
            if name == "order_id"
            else "float64"
            if name == "amount"
            else "timestamp",
            "header": header,
        }
        for name, header in columns.items()
    }
    orders = use_case.sources["orders"].model_copy(
        update={
            "columns": Source.model_validate(
                {"path": "x", "key": ["order_id"], "columns": declared}
            ).columns
        }
    )
    from include.config.settings import Settings
    from include.ingestion.sources import read_source
    from include.point_in_time import partitions

    changed = use_case.model_copy(update={"sources": {"orders": orders}})
    with FileReader() as made:
        period = partitions.period(changed, "2026-01-01")
        delivery = read_source("orders", changed, Settings(home=tmp_path), made, [period])
    assert [
        value.strip() for value in texts([dict(delivery.rows.to_pylist()[0])])[0].values()
    ] == ROW.split(",")


@pytest.mark.parametrize(
    ("rows", "guess"),
    [
        ([["id", "x"], ["1", "a"], ["2", "b"]], (0, True)),
        ([["Title", "", ""], ["", "", ""], ["id", "x", "y"], ["1", "a", "2"]], (2, True)),
        ([["", "", ""], ["id", "x", "y"], ["1", "a", "2"]], (0, True)),
        ([["1", "a", "2"], ["2", "b", "3"], ["3", "a", "4"]], (0, False)),
        ([["id", "x", "y"], ["1", "", ""], ["2", "", ""]], (0, True)),
        ([], (0, True)),
    ],
    ids=["plain", "title", "empty first", "no header", "sparse rows", "nothing"],
)
def test_where_the_table_of_a_sheet_begins_is_guessed(
    rows: list[list[str]], guess: tuple[int, bool]
) -> None:
    assert guess_sheet(rows) == guess


def test_names_below_a_row_that_only_counts_columns_are_the_header(
    reader: FileReader, tmp_path: Path
) -> None:
    lines = [f"{n},{n * 10},{n % 2}\n" for n in range(30)]
    twice = ",X1,Y\nID,LIMIT,default next month\n" + "".join(lines)
    answer, _ = read(reader, tmp_path / "a.csv", twice)
    assert (answer["columns"], answer["dialect"]["skip"]) == (
        ["ID", "LIMIT", "default next month"],
        1,
    )
    # Units below names are no header: what is above them says something.
    units = "depth,speed,kind\nm,m/s,code\n" + "".join(lines)
    answer, _ = read(reader, tmp_path / "b.csv", units)
    assert (answer["columns"], answer["dialect"]["skip"]) == (["depth", "speed", "kind"], 0)
    rows = [["X1", "X2", "Y"], ["id", "age", "late"], *[line.strip().split(",") for line in lines]]
    assert guess_sheet(rows) == (1, True)


def test_a_header_that_stands_again_below_is_a_header(reader: FileReader, tmp_path: Path) -> None:
    text = "".join([NAMES, *LINES[:9], NAMES, *LINES[9:]])
    answer, rows = read(reader, tmp_path / "a.csv", text)
    assert answer["columns"] == DECLARED
    assert len(rows) == len(LINES)


def test_single_quotes_within_cells_are_no_marks_around_values(
    reader: FileReader, tmp_path: Path
) -> None:
    """Lists of texts, whose commas separate nothing in a table by tabs."""
    text = "id\ttags\tx\n" + "".join(f"{n}\t['a', 'b', 'c{n}']\t{n}\n" for n in range(30))
    answer, _ = read(reader, tmp_path / "a.csv", text)
    assert answer["columns"] == ["id", "tags", "x"]
    assert answer["dialect"]["quote"] == '"'
