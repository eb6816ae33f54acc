"""Drafts: they pass the check, guess right on plain tables, and are not led astray by what a
file holds.
"""

from __future__ import annotations

import csv
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.config import use_case_file
from include.errors import ConfigError, SourceError
from include.onboarding import check, draft
from tests.builders.workbooks import workbook


def write(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def visits(path: Path, rows: int = 600) -> Path:
    """Entities that repeat, with an outcome that is known one to three days later."""
    rng = random.Random(5)
    start = datetime(2025, 1, 1, tzinfo=UTC)
    lines: list[list[object]] = []
    for number in range(rows):
        at = start + timedelta(hours=number)
        amount = rng.gauss(50, 10)
        closed = at + timedelta(days=1 + number % 3)
        channel, label = rng.choice(["shop", "web", "phone"]), int(amount + rng.gauss(0, 5) > 50)
        lines.append(
            [
                number,
                number % 40,
                at.isoformat(),
                f"{amount:.2f}",
                channel,
                f"note {number}",
                closed.isoformat(),
                label,
            ]
        )
    return write(
        path,
        [
            "order id",
            "customer_id",
            "event_time",
            "amount",
            "channel",
            "notes",
            "closed_at",
            "returned",
        ],
        lines,
    )


def applications(path: Path, rows: int = 300) -> Path:
    """Each entity once, with its label on the row."""
    rng = random.Random(6)
    lines: list[list[object]] = []
    for number in range(rows):
        income = rng.gauss(100, 20)
        day = date(2024, 1, 1) + timedelta(days=number % 200)
        lines.append(
            [
                f"A-{number:05}",
                day,
                f"{income:.1f}",
                rng.choice(["x", "y"]),
                rng.choice(["yes", "no"]),
            ]
        )
    return write(
        path, ["application_id", "applied_on", "income", "grade", "default.payment"], lines
    )


def test_entities_that_repeat(tmp_path: Path) -> None:
    name, text = draft.draft(visits(tmp_path / "visits.csv"))
    case = use_case_file.parse(text, folder=tmp_path)
    source = case.sources["rows"]
    assert name == case.name == "visits"
    assert case.entity.key == "customer_id"
    assert source.key == ["order_id"]
    assert source.columns["order_id"].header == "order id"
    assert source.event_time == "event_time"
    assert source.empty == "allow"
    assert case.label.column == "returned"
    assert case.label.label_time == "closed_at"
    assert case.label.delay == timedelta(days=3)
    assert (case.history.first, case.history.last) == (date(2025, 1, 1), date(2025, 1, 25))
    assert case.features["row_features"].columns == {"amount": "float64", "channel": "string"}
    assert "# notes: left out" in text


def test_each_entity_once_with_its_label_on_the_row(tmp_path: Path) -> None:
    _, text = draft.draft(applications(tmp_path / "applications.csv"))
    case = use_case_file.parse(text, folder=tmp_path)
    assert (case.entity.key, case.entity.type) == ("application_id", "string")
    assert case.sources["rows"].columns["default_payment"].type == "bool"
    assert case.label.column == "default_payment"
    assert case.sources["rows"].arrival == "event + 0s"
    assert case.features["row_features"].grain == "event"
    assert case.feature_types == {"income": "float64", "grade": "string"}


def test_every_guess_says_so_and_the_draft_passes_the_check(tmp_path: Path) -> None:
    for table in (visits(tmp_path / "visits.csv"), applications(tmp_path / "applications.csv")):
        name, text = draft.draft(table)
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        assert check.check_file(path).name == name
        for field in ("cadence", "history", "entity", "event_time", "key", "column", "delay"):
            lines = [
                line
                for line in text.splitlines()
                if line.strip().startswith(f"{field}:") and "{type:" not in line
            ]
            assert lines
            assert all("# guessed" in line or "# assumed" in line for line in lines), lines


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    days = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(100)]
    table = pa.table(
        {
            "user_id": [n % 10 for n in range(100)],
            "timestamp": pa.array(days, pa.timestamp("us", tz="UTC")),
            "score": [n / 7 for n in range(100)],
            "vip": [n % 2 == 0 for n in range(100)],
            "churned": [n % 3 == 0 for n in range(100)],
        }
    )
    pq.write_table(table, tmp_path / "users.parquet")
    case = use_case_file.parse(draft.draft(tmp_path / "users.parquet")[1], folder=tmp_path)
    assert case.label.column == "churned"
    assert case.features["row_features"].columns == {"score": "float64", "vip": "bool"}
    assert case.sources["rows"].columns["timestamp"].type == "timestamp"


def test_what_a_person_knows_is_taken(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        [n, n % 9, f"2025-01-{1 + n % 28:02}", f"2025-02-{1 + n % 28:02}", n % 2, n // 50 % 2]
        for n in range(100)
    ]
    table = write(tmp_path / "t.csv", ["a", "b", "seen", "start_date", "up", "down"], rows)
    guess = draft.draft(table)[1]
    assert "column: down  # guessed: the last column" in guess
    assert '# ASK: Which column is the outcome? Guessed: "down"; or "up"' in guess
    case = use_case_file.parse(
        draft.draft(table, key="b", time="seen", label="up")[1], folder=tmp_path
    )
    assert (case.entity.key, case.sources["rows"].event_time, case.label.column) == (
        "b",
        "seen",
        "up",
    )
    with pytest.raises(ConfigError, match="--entity 'c': no such column"):
        draft.draft(table, key="c")


def test_codes_with_leading_zeros_stay_text_and_misfits_are_named(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        [n, f"2025-01-{1 + n % 28:02}", f"{n % 9:04}", n if n != 7 else "seven", n % 2]
        for n in range(500)
    ]
    _, text = draft.draft(write(tmp_path / "t.csv", ["id", "date", "zip", "n", "label"], rows))
    case = use_case_file.parse(text, folder=tmp_path)
    assert case.sources["rows"].columns["zip"].type == "string"
    assert case.sources["rows"].columns["n"].type == "int64"
    assert "1 value(s) do not fit and would go to quarantine" in text


def test_hostile_headers_and_values_reach_neither_yaml_nor_sql(tmp_path: Path) -> None:
    header = [
        "id",
        "date",
        'x"; drop table given; --',
        "a: &a [*a]",
        "{{ 7*7 }}",
        "partition",
        "yes",
        "X y",
        "x_y",
        "label",
    ]
    rows: list[list[object]] = [
        [n, f"2025-01-{1 + n % 28:02}", n, n, "=cmd|x", n, "'); --", n % 5, n % 3, n % 2]
        for n in range(100)
    ]
    _, text = draft.draft(write(tmp_path / "t.csv", header, rows))
    case = use_case_file.parse(text, folder=tmp_path)
    source = case.sources["rows"]
    assert {column.header or name for name, column in source.columns.items()} == set(header)
    assert source.columns["partition_value"].header == "partition"
    assert len({name.lower() for name in source.columns}) == len(header)


def test_letters_beyond_two_bytes_are_names_values_and_places(tmp_path: Path) -> None:
    """In JSON they are two letters, which YAML does not put together."""
    rows: list[list[object]] = [
        [
            n,
            f"2025-01-{1 + n % 28:02}",
            n,
            "\U0001f44d" if n % 3 else "\U0001f44e",
            "\x7f" if n % 9 else n,
        ]
        for n in range(100)
    ]
    folder = tmp_path / "\U0001f4c1"
    folder.mkdir()
    header = ["id", "date", "\U00020bb7 \U0001f600", "label", "gap\x7f"]
    table = write(folder / "t.csv", header, rows)
    given = draft.path_in(tmp_path, table, tmp_path / "data")
    _, text = draft.draft(table, given_path=given, positive=("\U0001f44e",))
    source = use_case_file.parse(text, folder=tmp_path).sources["rows"]
    assert {column.header or name for name, column in source.columns.items()} == set(header)
    assert source.path == "\U0001f4c1/t.csv"
    assert use_case_file.parse(text, folder=tmp_path).label.positive == "\U0001f44e"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("id,date,label\n", "no rows"),
        ("id^date^label\n1^2025-01-01^0\n", r"each line is one value \('id\^date\^label'\)"),
        ('"1,2025-01-01,0"\n"2,2025-01-02,1"\n', "write the YAML by hand, .* separator under"),
        ("id,when,label\n1,soon,0\n2,later,1\n", "no column holds dates .* --snapshot DATE"),
        ("id,date,x\n1,2025-01-01,5\n2,2025-01-02,7\n", "no column holds just 0 and 1"),
        (
            "id,date,label\n" + "".join(f"{n},2025-01-01,{n % 2}\n" for n in range(9)),
            "no column is left that could be a feature",
        ),
    ],
)
def test_a_table_that_cannot_be_guessed_is_refused_with_a_remedy(
    tmp_path: Path, content: str, says: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises((ConfigError, SourceError), match=says):
        draft.draft(path)


def test_a_file_of_another_kind_or_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.pickle").write_bytes(b"\x80\x04N.")
    with pytest.raises(SourceError, match=r"a draft is made from \.csv, "):
        draft.draft(tmp_path / "t.pickle")
    with pytest.raises(SourceError, match="there is no such file"):
        draft.draft(tmp_path / "t.csv")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(SourceError, match=r"t\.parquet"):
        draft.draft(tmp_path / "t.parquet")


def test_the_yaml_names_the_table_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "uc" / "in").mkdir(parents=True)
    assert (
        draft.path_in(tmp_path / "uc", tmp_path / "uc" / "in" / "t.csv", tmp_path / "data")
        == "in/t.csv"
    )
    assert (
        draft.path_in(tmp_path / "uc", tmp_path / "data" / "t.csv", tmp_path / "data")
        == "{data_dir}/t.csv"
    )
    with pytest.raises(ConfigError, match="write the YAML beside the table"):
        draft.path_in(tmp_path / "uc", tmp_path / "t.csv", tmp_path / "data")
    with pytest.raises(ConfigError, match="rename it"):
        draft.path_in(tmp_path / "uc", tmp_path / "uc" / "t[1].csv", tmp_path / "data")


def test_a_workbook_is_drafted_with_its_sheet_and_what_stands_above_the_table(
    tmp_path: Path,
) -> None:
    rows: list[list[object]] = [["Visits of January"], []]
    with visits(tmp_path / "visits.csv").open() as file:
        rows += [
            [float(cell) if cell.replace(".", "", 1).isdigit() else cell for cell in row]
            for row in csv.reader(file)
        ]
    path = workbook(tmp_path / "visits.xlsx", ("Data", rows), ("Notes", [["none"]]))
    _, text = draft.draft(path)
    assert '    format: xlsx\n    sheet: "Data"  # read alone; others: "Notes"' in text
    assert "    skip: 2  # guessed: the lines before the header" in text
    assert "separator" not in text
    parsed = use_case_file.parse(text, folder=tmp_path)
    assert list(check.find_problems(parsed)) == []
    columns = parsed.sources["rows"].columns
    assert (
        columns
        == use_case_file.parse(draft.draft(tmp_path / "visits.csv")[1], folder=tmp_path)
        .sources["rows"]
        .columns
    )


def test_a_folder_is_drafted_as_a_glob(tmp_path: Path) -> None:
    folder = tmp_path / "visits"
    folder.mkdir()
    lines = visits(tmp_path / "all.csv").read_text().splitlines()
    for number, part in enumerate((lines[1:300], lines[300:])):
        (folder / f"{number}.csv").write_text("\n".join([lines[0], *part]) + "\n")
    name, text = draft.draft(folder, given_path=draft.path_in(tmp_path, folder, tmp_path / "data"))
    assert name == "visits"
    assert '    path: "visits/*.csv"' in text
    alone = draft.draft(tmp_path / "all.csv", name="visits", given_path="visits/*.csv")[1]
    # The first line names the table, the last one is over it.
    assert text.splitlines()[1:-1] == alone.splitlines()[1:-1]
