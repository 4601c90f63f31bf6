"""The files of a MIMIC-IV tree as people have them: damaged, padded, with other columns, times and numbers."""

import csv
import gzip
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from ehr_trees import IN_2100, dump, select, tree
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.build_ehr_db import build
from data_prep.common.errors import InputError
from data_prep.mimic.cohort import BuildOptions
from data_prep.mimic.csv_files import COLUMNS, TIMES, WHOLE_NUMBERS, MimicTree
from data_prep.mimic.gzip_files import BLOCK_BYTES, find_damage

TIME = "2150-03-02 11:00:00"
LABS = "".join(f"1,11,50,{TIME},{value},u\n" for value in range(300_000))


def built(folder: Path) -> list[str]:
    """The database of a tree, as SQL."""
    path = folder.with_name(f"{folder.name}.sqlite")
    build(folder, path, BuildOptions(**IN_2100))
    return dump(path)


def refusal(folder: Path) -> str:
    """What a build says about a tree that it refuses; nothing may be written."""
    out = folder.with_name("out")
    with pytest.raises(InputError) as caught:
        build(folder, out / "db.sqlite", BuildOptions(**IN_2100))
    assert "\n" not in str(caught.value)
    assert not list(out.glob("*")) and not list(out.glob(".*"))
    return str(caught.value)


def set_cell(folder: Path, table: str, column: str, text: str) -> None:
    """Put ``text`` into the first row."""
    path = folder / f"{table}.csv"
    with path.open(newline="") as file:
        header, row, *others = csv.reader(file)
    row[header.index(column)] = text
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, row, *others])


# ---- Gzip ------------------------------------------------------------------------------------------------------


def zipped(folder: Path, table: str, level: int = 6) -> tuple[Path, bytearray]:
    """The table's file as gzip, and its bytes."""
    path = folder / f"{table}.csv"
    data = gzip.compress(path.read_bytes(), level)
    path.unlink()
    return path.with_suffix(".csv.gz"), bytearray(data)


def wrong_letter(data: bytearray) -> None:
    data[-12] ^= 1  # of a file that is stored, not compressed


def wrong_check_sum(data: bytearray) -> None:
    data[-8] ^= 0x80


def zeroed_check_sum(data: bytearray) -> None:
    data[-8:-4] = bytes(4)


def wrong_length(data: bytearray) -> None:
    data[-4] ^= 1


def zeroed_end(data: bytearray) -> None:
    data[-8:] = bytes(8)


def cut(data: bytearray) -> None:
    del data[-3:]


def second_member_cut(data: bytearray) -> None:
    data += gzip.compress(b"1,2,3\n")[:-4]


def second_member_with_wrong_check_sum(data: bytearray) -> None:
    member = bytearray(gzip.compress(b""))
    wrong_check_sum(member)
    data += member


def first_member_with_wrong_check_sum(data: bytearray) -> None:
    wrong_check_sum(data)
    data += gzip.compress(b"")


def line_feed_behind(data: bytearray) -> None:
    data += b"\n"


def page_behind(data: bytearray) -> None:
    data += b"<html>502 Bad Gateway</html>"


def text_behind_zeros(data: bytearray) -> None:
    data += bytes(600) + b"x"


DAMAGES = (
    *(wrong_letter, wrong_check_sum, zeroed_check_sum, wrong_length, zeroed_end, cut, second_member_cut),
    *(second_member_with_wrong_check_sum, first_member_with_wrong_check_sum),
    *(line_feed_behind, page_behind, text_behind_zeros),
)


def damaged(folder: Path, table: str, damage: Callable[[bytearray], None]) -> Path:
    path, data = zipped(folder, table, level=0)
    damage(data)
    path.write_bytes(data)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_gzip_file_is_refused_by_name(tmp_path, damage):
    message = refusal(damaged(tree(tmp_path / "tree"), "hosp/d_labitems", damage))
    assert "hosp/d_labitems.csv.gz: damaged GZIP data (" in message and message.endswith("repair or replace the file")


@pytest.mark.parametrize("table", COLUMNS)
def test_a_wrong_letter_in_any_file_is_found(tmp_path, table):
    assert f"{table}.csv.gz: damaged GZIP data" in refusal(damaged(tree(tmp_path / "tree"), table, wrong_letter))


@pytest.mark.parametrize("damage", [wrong_check_sum, wrong_length, cut, page_behind])
def test_damage_behind_many_rows_is_found(tmp_path, damage):
    folder = tree(tmp_path / "tree")
    path = folder / "hosp/labevents.csv"
    path.write_text(path.read_text() + LABS)
    assert "labevents.csv.gz: damaged GZIP data" in refusal(damaged(folder, "hosp/labevents", damage))


def test_damage_is_found_where_all_rows_are_whole(tmp_path):
    """The text ends with a block, so that the wrong check sum comes to light behind the last row."""
    folder = tree(tmp_path / "tree")
    path = folder / "hosp/d_labitems.csv"
    text = path.read_text() + "52,"
    path.write_text(f"{text}{'x' * (BLOCK_BYTES - len(text) - 1)}\n")
    assert "d_labitems.csv.gz: damaged GZIP data" in refusal(damaged(folder, "hosp/d_labitems", wrong_check_sum))


@pytest.mark.parametrize(
    ("table", "row", "changed"),
    [
        ("hosp/labevents", f"1,11,50,{TIME},4.5,u", f"1,11,50,{TIME},4?5,u"),  # no number
        ("hosp/labevents", f"1,11,50,{TIME},4.5,u", f"1,11,50,{TIME},4,5,u"),  # a column more
        ("hosp/transfers", f"1,11,77,ED,,{TIME},", f"1,11,88,ED,,{TIME},"),  # the id is there already
    ],
)
def test_damage_is_the_reason_that_is_given_for_what_it_makes_of_a_row(tmp_path, table, row, changed):
    rows = {"labevents": LABS, "transfers": f"1,11,88,ED,,{TIME},\n"}
    folder = tree(tmp_path / "tree")
    path = folder / f"{table}.csv"
    path.write_text(path.read_text() + f"{row}\n" + rows[path.stem])
    path, data = zipped(folder, table, level=0)
    assert data.count(row.encode()) == 1
    path.write_bytes(data.replace(row.encode(), changed.encode()))
    assert f"{path}: damaged GZIP data (" in refusal(folder)


@pytest.mark.parametrize("zeros", [1, 512, 100_000])
def test_zero_bytes_behind_the_last_member_are_no_damage(tmp_path, zeros):
    expected = built(tree(tmp_path / "plain"))
    folder = tree(tmp_path / "padded", zipped=True)
    for path in folder.glob("*/*.csv.gz"):
        path.write_bytes(path.read_bytes() + bytes(zeros))
    assert built(folder) == expected


def test_members_of_any_number_and_kind_are_one_file(tmp_path):
    expected = built(tree(tmp_path / "plain"))
    folder = tree(tmp_path / "members")
    for table in COLUMNS:
        text = (folder / f"{table}.csv").read_bytes()
        (folder / f"{table}.csv").unlink()
        named = zlib.compressobj(wbits=31)
        members = [gzip.compress(b""), gzip.compress(text[:7], 0), named.compress(text[7:]) + named.flush()]
        (folder / f"{table}.csv.gz").write_bytes(b"".join(members) + gzip.compress(b""))
    assert built(folder) == expected


@given(st.binary(max_size=300), st.data())
def test_no_changed_byte_changes_a_text_unseen(tmp_path_factory, text, data):
    content = bytearray(gzip.compress(text) + gzip.compress(text[::-1], 0))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.gz"
    path.write_bytes(content)
    if find_damage(path) is None:  # a changed name or date in the header, say
        assert gzip.decompress(content) == text + text[::-1]


def test_a_file_that_is_read_in_pieces_and_with_little_memory_is_read_whole(tmp_path):
    folder = tree(tmp_path / "tree")
    path = folder / "hosp/labevents.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n" + LABS * 3)  # above what DuckDB reads at once
    path, data = zipped(folder, "hosp/labevents")
    path.write_bytes(data)
    build(folder, tmp_path / "db.sqlite", BuildOptions(**IN_2100), memory_limit="300MB")
    labs = "SELECT row_id, CAST(valuenum AS INT) AS value FROM labevents"
    query = f"SELECT count(*), sum(value), sum(row_id * value) FROM ({labs})"
    values = [*range(300_000)] * 3
    expected = (len(values), sum(values), sum(row * value for row, value in enumerate(values)))
    assert select(tmp_path / "db.sqlite", query) == [expected]


@pytest.mark.parametrize("blocks", [1, 2, 9])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_text_that_ends_near_the_end_of_a_block_is_read_whole(tmp_path, blocks, more):
    folder = tree(tmp_path / "tree")
    path = folder / "hosp/d_labitems.csv"
    text = path.read_text() + "52,"
    label = "".join(map(str, range(BLOCK_BYTES * blocks)))[: BLOCK_BYTES * blocks + more - len(text) - 1]
    path.write_text(f"{text}{label}\n")
    path, data = zipped(folder, "hosp/d_labitems")
    path.write_bytes(data)
    with duckdb.connect() as db:
        MimicTree(folder).create_views(db)
        twice = "FROM d_labitems UNION ALL FROM d_labitems"  # two scans, at the same time
        assert db.execute(twice).fetchall() == [(1, 50, "Sodium"), (2, 51, "Glucose"), (3, 52, label)] * 2


# ---- Columns ---------------------------------------------------------------------------------------------------


def add_column(folder: Path, table: str, name: str, place: int, cell: str = "77") -> None:
    path = folder / f"{table}.csv"
    with path.open(newline="") as file:
        rows = [[*row[:place], cell if number else name, *row[place:]] for number, row in enumerate(csv.reader(file))]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.parametrize(
    "names",
    [
        [""],  # pandas' index
        ["", ""],
        ["x", "x"],
        ["x", "X"],
        ["ITEMID", "Subject_Id", "CHARTTIME", "HADM_ID"],
        ["file_row", "FILE_ROW", "further_0", "further_1"],
        ["itemid ", " charttime", "itemid.1", '"itemid"', "a,b", "'", "\u00e9", "0"],
        [f"column {number}" for number in range(40)],
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_further_columns_may_have_any_name(tmp_path, names, place):
    expected = built(tree(tmp_path / "plain"))
    folder = tree(tmp_path / "further")
    for table in COLUMNS:
        for name in names:
            add_column(folder, table, name, place)
    assert built(folder) == expected


@pytest.mark.parametrize("table", COLUMNS)
def test_a_needed_column_that_stands_twice_is_named(tmp_path, table):
    folder = tree(tmp_path / "tree")
    for column in COLUMNS[table].split()[:2]:
        add_column(folder, table, column, 2)
    message = refusal(folder)
    assert f"{table}.csv has the column " in message and "more than once" in message
    assert all(column in message for column in COLUMNS[table].split()[:2])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["heart\nrate", "heart\rrate", "\r\n"])
def test_a_line_break_in_the_name_of_a_column_is_named(tmp_path, name, end):
    path = tree(tmp_path / "tree") / "hosp/d_labitems.csv"
    path.write_text(f'itemid,label,"{name}"{end}50,Sodium,x{end}', newline="")
    assert f"d_labitems.csv has a line break in the name of the column {name!r}" in refusal(tmp_path / "tree")


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=9)


@given(st.lists(st.tuples(NAMES, st.integers(0, 5)), max_size=5))
@settings(max_examples=25, deadline=None)
def test_columns_are_found_by_their_names_among_others(tmp_path_factory, others):
    needed = COLUMNS["hosp/d_labitems"].split()
    folder = tree(tmp_path_factory.mktemp("columns") / "tree")
    for name, place in others:
        if name not in needed:
            add_column(folder, "hosp/d_labitems", name, place)
    with duckdb.connect() as db:
        MimicTree(folder).create_views(db)
        assert db.execute("FROM d_labitems").fetchall() == [(1, 50, "Sodium"), (2, 51, "Glucose")]


def test_a_table_as_pandas_writes_it_with_index_and_gaps(tmp_path):
    expected = built(tree(tmp_path / "plain", transfers=[f"1,11,5,ED,,{TIME},", f"2,,6,ED,,{TIME},"]))
    lines = [f",{','.join(COLUMNS['hosp/transfers'].split())}", f"0,1,11.0,5,ED,,{TIME},", f"1,2,,6,ED,,{TIME},"]
    folder = tree(tmp_path / "pandas")
    (folder / "hosp/transfers.csv").write_text("\n".join(lines) + "\n")
    assert built(folder) == expected


# ---- Times and whole numbers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """What a macro of the views makes of a cell, None where the cell is refused."""
    db = duckdb.connect()
    MimicTree(tree(tmp_path_factory.mktemp("macros") / "tree")).create_views(db)

    def read(macro: str, text: str) -> object:
        cell = "CAST($1 AS DOUBLE)" if macro == "whole" else "$1"
        query = f"SELECT CAST({macro}(cell, 1, 'name') AS VARCHAR) FROM (SELECT {cell} AS cell)"
        try:
            return db.execute(query, [text]).fetchone()[0]
        except (duckdb.InvalidInputException, duckdb.ConversionException):
            return None

    yield read
    db.close()


def cells(names: set[str]) -> list[tuple[str, str]]:
    return [(table, column) for table, columns in COLUMNS.items() for column in columns.split() if column in names]


@pytest.mark.parametrize(("table", "column"), cells(TIMES))
def test_a_time_with_something_behind_it_is_refused_in_any_column(tmp_path, table, column):
    text = "2150-03-02 11:00 PM"  # as long as a time of MIMIC-IV
    folder = tree(tmp_path / "tree")
    set_cell(folder, table, column, text)
    message = refusal(folder)
    assert f"{table}.csv" in message and f"row 1, column {column}: '{text}' is not a time" in message


@pytest.mark.parametrize("time", [TIME, "2150-03-02T11:00:00", "2150-03-02 11:00", "2150-03-02 11:00:00.5"])
@pytest.mark.parametrize(
    "suffix",
    [
        *("PM", " PM", " AM", " am", " p.m.", " a. m.", "Z PM", " PM Z", " noon", " Uhr", "h"),
        *("-05:00", "+0530", "+05", " +05:30", " -5", "+00:30", "-00:01", "+05:00:00", "Z+1", " UTC+2", " GMT-5"),
        *(" EST", " EDT", " CET", " BST", " America/New_York", "[Europe/Berlin]", " Etc/GMT+5", " local"),
        *(" xyz", "x", " ?", " (BC)", " BC", ";", ",", "/", " 1", " 2150-03-02", "\u00a0PM", "\u65e5", "\x00"),
    ],
)
def test_nothing_but_utc_may_follow_a_time(cell, time, suffix):
    assert cell("moment", time + suffix) is None


@pytest.mark.parametrize(
    ("text", "time"),
    [
        *((f"{TIME}{suffix}", TIME) for suffix in ("", "Z", " Z", " UTC", "+00:00", "+00", "-0000", " ", "\n")),
        *((text, TIME) for text in (f" {TIME}", "2150-03-02T11:00:00", "2150-03-02T11:00:00Z", "2150-3-2 11:00")),
        *((text, TIME) for text in ("2150/03/02 11:00:00",)),
        *((text, "2150-03-02 00:00:00") for text in ("2150-03-02", "2150-03-02Z", "2150-3-2", " 2150-03-02 ")),
        ("2150-03-02 11:00:00.123456", f"{TIME}.123456"),
    ],
)
def test_other_spellings_of_a_time_that_are_understood(cell, text, time):
    assert cell("moment", text) == time


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "PM",
            "3/1/2150 11:00",
            "01.03.2150",
            "20500301",
            "11:00:00",
            "epoch",
            "infinity",
            "-infinity",
            "now",
        ),
        *(
            "2150-13-02",
            "2150-02-30 11:00:00",
            "2150-03-02 25:00:00",
            "2150-03-02 11:60:00",
            "2150-03-02 11",
            "2150-03",
        ),
        *("2150-03-02 PM", "2150-03-02 +05:00", "2150-03-02 11:0:5PM", "2150-03-02 1:00:0PM"),
        *("\u0662\u0661\u0665\u0660-03-02", "2150-03-02 11:00:0\u0660"),
    ],
)
def test_what_is_no_time(cell, text):
    assert cell("moment", text) is None


@given(st.text(max_size=12))
def test_no_text_behind_a_time_is_dropped(cell, suffix):
    result = cell("moment", TIME + suffix)
    assert (
        result is None
        or suffix.strip(" \t\n\r\f\v") in ("", "Z", "UTC", "+00", "-00", "+0000", "-0000", "+00:00", "-00:00")
        or (suffix[0] == ".")
    )


@pytest.mark.parametrize(("table", "column"), cells(WHOLE_NUMBERS))
def test_a_fraction_is_refused_in_any_column_of_whole_numbers(tmp_path, table, column):
    text = "12.5"
    folder = tree(tmp_path / "tree")
    set_cell(folder, table, column, text)
    message = refusal(folder)
    assert f"{table}.csv" in message and f"row 1, column {column}: {text} is not a whole number" in message


@pytest.mark.parametrize(
    "text",
    [
        *("12.5", "12.04", "12.000000000000001", "-0.5", "1.5e0", "15e-1", "1.0.0", ".", "-", "1-2", ".5"),
        *(
            "1,000",
            "1 000",
            "12 mg",
            "12PM",
            "twelve",
            "inf",
            "-inf",
            "1e400",
            "\u0661\u0662",
            "9007199254740992",
            "",
        ),
    ],
)
def test_what_is_no_whole_number(cell, text):
    assert cell("whole", text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *((text, "12") for text in ("12", "12.0", "12.", "12.000", " 12 ", "+12", "0012")),
        *(("-3", "-3"), ("-3.0", "-3"), ("2e+07", "20000000"), ("9007199254740991.0", "9007199254740991")),
    ],
)
def test_other_spellings_of_a_whole_number_that_are_understood(cell, text, number):
    assert cell("whole", text) == number


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=6) | st.integers(-(10**9), 10**9).map(Decimal))
def test_a_decimal_number_is_its_whole_number_or_refused(cell, number):
    written = f"{number:f}"
    assert cell("whole", written) == (str(int(number)) if number == int(number) else None)


@pytest.mark.parametrize(
    ("column", "text"), [("charttime", f"{TIME} PM"), ("hadm_id", "11.5"), ("itemid", "50.2"), ("subject_id", "9.1")]
)
def test_rows_that_the_rules_drop_are_checked_too(tmp_path, column, text):
    folder = tree(tmp_path / "tree", labevents=[f"9,99,99,{TIME},1,u"])
    set_cell(folder, "hosp/labevents", column, text)
    message = refusal(folder)
    assert f"labevents.csv: Invalid Input Error: row 1, column {column}: " in message and text in message
