"""The EHRSQL database: equal to the shared task's on the demo, and each rule on trees of a few rows."""

import gzip
import os
import random
import resource
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
from conftest import REPO
from ehr_trees import IN_2100, admission, dump, select, tree
from rich.console import Console

from data_prep.build_ehr_db import build, main
from data_prep.common.errors import InputError
from data_prep.mimic.cohort import BuildOptions
from data_prep.mimic.csv_files import COLUMNS, parse_number
from data_prep.mimic.progress import BuildProgress

SHARED_TASK = ["--num_patient", "100", "--timeshift", "--current_time", "2100-12-31 23:59:00", "--start_year", "2100"]
SHARED_TASK += ["--time_span", "0", "--cur_patient_ratio", "0.1"]


@pytest.fixture
def query(tmp_path):
    """Build a changed tree with options, and ask the database."""

    def run(sql: str, options: dict = IN_2100, **changes: list[str]) -> list[tuple]:
        path = tmp_path / "db.sqlite"
        build(tree(tmp_path / "tree", **changes), path, BuildOptions(**options))
        return select(path, sql)

    return run


# ---- The shared task's database --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo_database(shared_data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("ehr")
    main(["--data_dir", str(shared_data / "mimic_iv_demo"), "--out_dir", str(out), *SHARED_TASK])
    return out / "mimic_iv.sqlite"


TABLES = [*COLUMNS, "cost"]


@pytest.mark.parametrize("table", [table.split("/")[-1] for table in TABLES])
def test_equals_the_shared_task_database(table, demo_database, shared_data):
    reference = shared_data / "ehrsql2024" / "mimic_iv.sqlite"
    for pragma in ("table_info", "foreign_key_list"):
        assert select(demo_database, f"PRAGMA {pragma}({table})") == select(reference, f"PRAGMA {pragma}({table})")
    rows, expected = (select(path, f"SELECT * FROM {table} ORDER BY row_id") for path in (demo_database, reference))
    assert len(rows) == len(expected)
    differing = [i for i, pair in enumerate(zip(rows, expected, strict=True)) if repr(pair[0]) != repr(pair[1])]
    assert not differing  # repr tells 1 from 1.0 and '1'


def test_tables_stand_in_the_shared_task_order(demo_database, shared_data):
    names = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid"
    assert select(demo_database, names) == select(shared_data / "ehrsql2024" / "mimic_iv.sqlite", names)
    assert len(select(demo_database, names)) == 17


# ---- Reading ---------------------------------------------------------------------------------------------------


def test_same_database_again_and_from_gzip(tmp_path):
    for name, zipped in (("a", False), ("b", False), ("c", True)):
        build(tree(tmp_path / name, zipped), tmp_path / f"{name}.sqlite", BuildOptions(**IN_2100))
    assert dump(tmp_path / "a.sqlite") == dump(tmp_path / "b.sqlite") == dump(tmp_path / "c.sqlite")


def test_text_is_lower_cased_and_stripped(query):
    assert query("SELECT DISTINCT admission_type, discharge_location FROM admissions") == [("urgent", "home")]


def test_blank_text_counts_as_a_value_but_is_stored_as_null(query):
    times = "2150-03-02 11:00:00"
    labs = [f"1,11,50,{times},1,", f"1,11,50,{times},2, ", f"1,11,50,{times},3,NA", f"1,11,50,{times},4,na"]
    assert query("SELECT valuenum, valueuom FROM labevents", labevents=labs) == [(2.0, None), (4.0, "na")]


def test_source_order_is_kept_in_a_file_that_is_read_in_several_parts(query):
    draw = random.Random(0)
    items = [draw.choice([220045, *range(10)]) for _ in range(150_000)]
    rows = [f"1,11,7,2150-03-02 14:00:00,{item},{i},{'x' * 80}" for i, item in enumerate(items)]
    result = query("SELECT valuenum FROM chartevents ORDER BY row_id", chartevents=rows)
    assert result == [(float(i),) for i, item in enumerate(items) if item == 220045]


def test_a_wrong_cell_far_into_a_file_is_named(tmp_path):
    rows = [f"1,11,7,2150-03-02 14:00:00,220045,{i},bpm" for i in range(200_000)]
    rows[150_000] = "1,11,7,2150-03-02 14:00:00,220045,eighty,bpm"
    with pytest.raises(InputError, match="chartevents.csv: .*row 150,001, column valuenum: 'eighty' is not a number"):
        build(tree(tmp_path / "tree", chartevents=rows), tmp_path / "db.sqlite", BuildOptions(**IN_2100))
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_line_breaks_and_commas_in_quotes_and_text_beyond_ascii(query):
    drugs = ['"Drug, \n ""two"" "', "\u00a0ÄSCULIN\u2003", "ΣΟΦΟΣ"]
    times = "2150-03-02 12:00:00,2150-03-03 12:00:00"
    rows = [f"1,11,{times},{drug},1,mg,PO" for drug in drugs]
    assert query("SELECT drug FROM prescriptions ORDER BY row_id", prescriptions=rows) == [
        ('drug, \n "two"',),
        ("äsculin",),
        ("σοφος",),
    ]


def test_columns_in_another_order_and_further_ones(tmp_path):
    build(tree(tmp_path / "tree"), tmp_path / "a.sqlite", BuildOptions(**IN_2100))
    for table in COLUMNS:
        path = tmp_path / "tree" / f"{table}.csv"
        lines = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("".join(",".join([f"new{i or ''}", *reversed(line)]) + "\n" for i, line in enumerate(lines)))
    build(tmp_path / "tree", tmp_path / "b.sqlite", BuildOptions(**IN_2100))
    assert dump(tmp_path / "a.sqlite") == dump(tmp_path / "b.sqlite")


def test_events_of_unknown_patients_and_of_others_admissions_are_dropped(query):
    time = "2150-03-02 11:00:00"
    rows = [f"9,11,50,{time},1,u", f"2,11,50,{time},2,u", f",11,50,{time},3,u", f"1,11,50,{time},4,u"]
    assert query("SELECT valuenum FROM labevents", labevents=rows) == [(4.0,)]


def test_numbers_are_parsed_as_by_the_pandas_of_the_shared_task():
    assert parse_number("99.99999237060547") == 99.99999237060548
    for text in ("0", "-0.5", "36.6", ".5", "5.", "+1e3", "2.5E-3", "123456789012345678"):
        assert parse_number(text) == float(text)
    for text in ("", " ", "1,5", "abc", "inf", "1_0", ".", "1e"):
        with pytest.raises(ValueError):
            parse_number(text)


# ---- People and time -------------------------------------------------------------------------------------------


def test_birth_dates_are_two_fixed_days_of_the_year_of_birth(query):
    people = ["1,F,30,2150,", "2,M,39,2160,"]  # 2120 is a leap year: one day more to draw from
    days = [random.Random(0).randint(0, number) for number in (366, 365)]
    expected = [str(datetime(year, 1, 1) + timedelta(days)) for year, days in zip((2120, 2121), days, strict=True)]
    assert query("SELECT dob FROM patients", {}, patients=people) == [(day,) for day in expected]


def test_age_is_that_of_the_unmoved_admission(query):
    assert query("SELECT hadm_id, age FROM admissions") == [(11, 30), (21, 40)]


def test_offset_is_whole_365_day_years_so_days_drift(query):
    # 2150 -> 2100 crosses 12 leap days, 2160 -> 2100 crosses 15 (2100 itself is no leap year)
    assert query("SELECT hadm_id, admittime FROM admissions") == [
        (11, "2100-03-13 10:00:00"),
        (21, "2100-03-14 10:00:00"),
    ]


def test_what_lies_after_the_current_time_is_hidden(query):
    options = IN_2100 | dict(current_time="2100-03-14 11:00:00", num_patient=10, cur_patient_ratio=0.5)
    sql = "SELECT hadm_id, dischtime, discharge_location FROM admissions"
    assert query(sql, options) == [(11, None, None), (21, None, None)]
    assert query("SELECT charttime FROM labevents", options) == [("2100-03-14 11:00:00",)]  # not later: stays
    assert query("SELECT count(*) FROM prescriptions", options) == [(0,)]  # starts an hour too late
    assert query("SELECT dod FROM patients", options) == [(None,), (None,)]
    assert query("SELECT intime, outtime FROM icustays", options) == [("2100-03-13 12:00:00", None)]


def test_events_before_the_start_year_are_dropped_but_stays_are_not(query):
    early = "1,11,50,2149-12-01 00:00:00,1,u"
    stay = "1,11,7,MICU,MICU,2149-12-01 00:00:00,2150-03-04 12:00:00"
    assert query("SELECT count(*) FROM labevents", labevents=[early]) == [(0,)]
    assert query("SELECT intime FROM icustays", icustays=[stay]) == [("2099-12-13 00:00:00",)]


def many_patients(count: int = 40) -> dict[str, list[str]]:
    numbers = range(1, count + 1)
    return {
        "patients": [f"{n},F,30,2150," for n in reversed(numbers)],
        "admissions": [admission(n, n, "2150-06-01", "2150-06-05" if n % 4 else "") for n in numbers],
    }


def test_target_years_are_drawn_by_first_appearance_and_later_ones_more_often(query):
    options = dict(timeshift=True, current_time="2999-01-01 00:00:00", start_year=2100, time_span=2, num_patient=99)
    rng = np.random.default_rng(0)
    target = [int(rng.choice([2100, 2101, 2102], p=[1 / 6, 2 / 6, 3 / 6])) for _ in range(40)]
    rows = query("SELECT subject_id, strftime('%Y', admittime) FROM admissions", options, **many_patients())
    assert rows and all(int(year) == target[subject - 1] for subject, year in rows)


@pytest.mark.parametrize(("number", "ratio"), [(8, 0.0), (8, 0.5), (8, 1.0), (30, 0.5), (300, 0.1), (9, 0.25)])
def test_cohort_draws_current_patients_then_others(query, number, ratio):
    current, others = np.arange(4, 41, 4), np.array([n for n in range(1, 41) if n % 4])
    rng = np.random.default_rng(0)
    wanted = int(number * ratio)
    chosen = rng.choice(current, wanted, replace=False) if wanted <= len(current) else current
    rest = number - wanted  # a shortage of current patients is not made up for
    chosen = [*chosen, *(rng.choice(others, rest, replace=False) if rest <= len(others) else others)]
    options = dict(num_patient=number, cur_patient_ratio=ratio)
    rows = query("SELECT subject_id FROM patients ORDER BY row_id", options, **many_patients())
    assert rows == [(n,) for n in sorted(map(int, chosen), reverse=True)]  # in the order of the patients file


def test_without_time_shift_times_stay_and_time_options_do_nothing(query):
    options = IN_2100 | dict(timeshift=False)
    assert query("SELECT admittime FROM admissions WHERE hadm_id = 12", options) == [("2151-06-01 10:00:00",)]
    assert query("SELECT dod FROM patients", options) == [("2151-02-03 00:00:00",), (None,)]
    assert query("SELECT charttime FROM labevents", options) == [("2150-03-02 11:00:00",)]


def test_icu_patients_only(query):
    assert query("SELECT subject_id FROM patients", IN_2100 | dict(sample_icu_patient_only=True)) == [(1,)]


def test_deid_renumbers_ids_alike_in_all_tables_and_changes_nothing_else(tmp_path):
    source = tree(tmp_path / "tree")
    for name, deid in (("plain", False), ("deid", True)):
        build(source, tmp_path / name, BuildOptions(deid=deid, **IN_2100))
    joined = "SELECT count(*) FROM labevents JOIN admissions USING (subject_id, hadm_id) JOIN icustays USING (hadm_id)"
    assert select(tmp_path / "deid", joined) == select(tmp_path / "plain", joined) == [(1,)]
    assert {row[0] for row in select(tmp_path / "deid", "SELECT hadm_id FROM admissions")} <= {1, 2, 3}
    rest = "SELECT cost, chargetime FROM cost"
    assert select(tmp_path / "deid", rest) == select(tmp_path / "plain", rest)


# ---- Dictionaries and events -----------------------------------------------------------------------------------


def test_icd_dictionaries(query):
    rows = ["0010,9,Cholera", "0010,9,Other", "0011,9,Cholera", "0012,9,", "0010,10,Typhoid", "V1,9,Dental Examination"]
    rows.append("V1,9,Check-up")
    assert query("SELECT * FROM d_icd_diagnoses", d_icd_diagnoses=rows) == [
        (0, "icd9|0010", "cholera"),
        (1, "icd10|0010", "typhoid"),
        (2, "icd9|v1", "check-up"),
    ]
    assert query("SELECT long_title FROM d_icd_procedures", d_icd_procedures=rows[5:6]) == [("dental examination",)]


def test_shared_labels_are_kept_at_home_only(query):
    times = "2150-03-02 12:00:00,2150-03-03 12:00:00"
    changes = dict(
        d_labitems=["1,Sodium", "2,Propofol", "3,"],
        d_items=["4,Propofol,p,inputevents", "5,Sodium,s,inputevents", "6,X,x,datetimeevents", "7,,y,inputevents"],
        prescriptions=[f"1,11,{times},{drug},1,mg,PO" for drug in ("Propofol", "Sodium", "Zinc")],
    )
    assert query("SELECT label FROM d_labitems", **changes) == [("sodium",)]
    assert query("SELECT label FROM d_items", **changes) == [("propofol",)]
    assert query("SELECT drug FROM prescriptions", **changes) == [("zinc",)]


def test_diagnoses_have_the_time_of_the_admission(query):
    rows = ["1,11,0010,9", "1,11,0010,9", "1,11,9999,9", "1,99,0010,9"]
    expected = ("icd9|0010", "2100-03-13 10:00:00")
    assert query("SELECT icd_code, charttime FROM diagnoses_icd", diagnoses_icd=rows) == [expected, expected]


def test_procedures_outside_the_admission_move_to_the_discharge(query):
    days = ("2150-03-01", "2150-03-02", "2150-03-05", "2150-03-06")
    rows = [f"1,11,{day},0001,9" for day in days]
    result = query("SELECT charttime FROM procedures_icd", dict(num_patient=9), procedures_icd=rows)
    assert [time for (time,) in result] == [
        "2150-03-05 10:00:00",  # midnight is before the admission at 10:00
        "2150-03-02 00:00:00",
        "2150-03-05 00:00:00",
        "2150-03-05 10:00:00",
    ]


def test_prescriptions_keep_whole_doses_in_the_most_frequent_unit(query):
    def rows(*doses: str, subject: str = "1,11") -> list[str]:
        return [f"{subject},2150-03-02 12:00:00,2150-03-03 12:00:00,Aspirin,{dose},PO" for dose in doses]

    def kept(*lines: str) -> list[tuple]:
        return query("SELECT dose_val_rx, dose_unit_rx FROM prescriptions", prescriptions=[*lines])

    assert kept(*rows('"1,000",mg', "0.5,mg", "5-10,mg", "-5,mg", " 7 ,mg", ",mg")) == [("1000.0", "mg"), ("7.0", "mg")]
    assert kept(*rows("1,tab", "2,mg")) == [("1.0", "tab")]  # a tie: first seen
    assert kept(*rows("1,tab", "0.5,mg", "0.5,mg")) == [("1.0", "tab")]  # a dropped dose does not count
    assert kept(*rows("1,tab"), *rows("2,mg", "3,mg", subject="9,99")) == []  # counted over all patients
    assert kept(*(line.replace("PO", "") for line in rows("1,tab"))) == []


def test_costs_are_one_draw_for_each_sorted_code_after_the_cohort(query):
    rng = np.random.default_rng(0)
    rng.choice([2100], p=[1.0]), rng.choice([2100], p=[1.0])  # two target years
    rng.choice([], 0, replace=False), rng.choice([1, 2], 2, replace=False)
    mean = rng.poisson(10, 4)
    price = [round(rng.normal(mean[i], 1.0), 2) for i in (0, 1, 1, 2, 3)]
    labs = [f"1,11,{item},2150-03-02 11:00:00,1,u" for item in (51, 50, 51)]
    rows = query("SELECT * FROM cost", IN_2100 | dict(num_patient=2), labevents=labs)
    assert [(row[0], row[3], row[4], row[6]) for row in rows] == [
        (0, "diagnoses_icd", 0, price[0]),
        (1, "labevents", 0, price[2]),
        (2, "labevents", 1, price[1]),
        (3, "labevents", 2, price[2]),
        (4, "procedures_icd", 0, price[3]),
        (5, "prescriptions", 0, price[4]),
    ]
    assert rows[5][5] == "2100-03-14 12:00:00"


@pytest.mark.parametrize(
    ("table", "good", "bad"),
    [
        ("labevents", "1,11,50,{t},1,u", ["1,,50,{t},1,u", "1,11,50,{t},,u", "1,11,50,,1,u", "1,11,99,{t},1,u"]),
        (
            "chartevents",
            "1,11,7,{t},220045,1,u",
            ["1,11,7,{t},220045,1,", "1,11,,{t},220045,1,u", "1,11,7,{t},9,1,u"],
        ),
        ("inputevents", "1,11,7,{t},900,1,ML", ["1,11,7,{t},900,1,mg", "1,11,,{t},900,1,ml", "1,11,7,{t},900,,ml"]),
        ("outputevents", "1,11,7,{t},901,1,ml", ["1,11,7,{t},901,1,", "1,,7,{t},901,1,ml", "1,11,7,{t},99,1,ml"]),
    ],
)
def test_measurements_that_are_kept(query, table, good, bad):
    rows = [line.format(t="2150-03-02 11:00:00") for line in (good, *bad, good)]
    assert query(f"SELECT row_id FROM {table}", **{table: rows}) == [(0,), (1,)]  # duplicates stay


def test_microbiology_falls_back_to_the_date(query):
    rows = ["1,11,2150-03-02 00:00:00,,Swab,Test,", "1,11,2150-03-02,2150-03-02 13:00:00,Swab,Test,", "1,11,,,Swab,T,"]
    assert query("SELECT charttime FROM microbiologyevents", microbiologyevents=rows) == [
        ("2100-03-14 00:00:00",),
        ("2100-03-14 13:00:00",),
    ]


# ---- Bad input: one clear line, nothing half-written -----------------------------------------------------------


def remove(folder: Path) -> None:
    (folder / "hosp/labevents.csv").unlink()
    (folder / "icu/d_items.csv").unlink()


def truncate(folder: Path) -> None:
    path = folder / "hosp/labevents.csv"
    text = path.read_bytes() + b"".join(b"1,11,50,2150-03-02 11:00:00,%d,u\n" % i for i in range(5000))
    path.unlink()
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(text)[:-500])


def edit(table: str, old: str, new: str):
    def change(folder: Path) -> None:
        path = folder / f"{table}.csv"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def header_only(table: str):
    return lambda folder: (folder / f"{table}.csv").write_text(",".join(COLUMNS[table].split()) + "\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: folder.rename(folder.with_name("gone")), ["no such folder", "tree"]),
        (remove, ["hosp/labevents.csv", "icu/d_items.csv"]),
        (truncate, ["labevents.csv.gz", "GZIP"]),
        (edit("hosp/labevents", "valuenum", "number"), ["labevents.csv", "valuenum"]),
        (edit("hosp/labevents", "1.5", "high"), ["labevents.csv", "valuenum", "high"]),
        (edit("hosp/labevents", "1,11,", "one,11,"), ["labevents.csv", "subject_id", "one", "Line: 2"]),
        (edit("hosp/labevents", "2150-03-02", "2150-13-02"), ["labevents.csv", "charttime", "2150-13-02"]),
        (edit("hosp/labevents", "1.5,", ""), ["labevents.csv", "Number of Columns"]),
        (edit("hosp/labevents", "2150-03-02", "12150-03-02"), ["labevents.csv", "row 1", "charttime", "12150"]),
        (edit("hosp/admissions", "2150-03-01", "0000-03-01"), ["admissions.csv", "row 1", "admittime"]),
        (edit("icu/d_items", "901,", "900,"), ["d_items.itemid"]),
        (edit("hosp/patients", "1,F,30,2150,2151-02-03\n2,M,40,2160,\n", ""), ["patients", "no rows"]),
        (header_only("hosp/admissions"), ["admissions", "no rows"]),
        (edit("hosp/patients", ",2150,", ",,"), ["patients", "anchor_year"]),
        (edit("hosp/patients", "2,M", "1,M"), ["patients", "subject_id 1", "twice"]),
        (edit("hosp/admissions", "2,21", "3,21"), ["admissions", "subject_id 3"]),
        (edit("hosp/admissions", "URGENT", ""), ["admissions.admission_type"]),
        (lambda folder: (folder / "hosp/patients.csv").write_bytes(b""), ["patients.csv", "subject_id"]),
    ],
)
def test_bad_trees(tmp_path, damage, words):
    folder = tree(tmp_path / "tree")
    damage(folder)
    with pytest.raises(InputError) as caught:
        build(folder, tmp_path / "out" / "db.sqlite", BuildOptions(**IN_2100))
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message
    assert not list((tmp_path / "out").glob("*")) and not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--timeshift", "--start_year", "2100"], ["--current_time", "--time_span"]),
        ([*SHARED_TASK, "--current_time", "2100-12-32 00:00:00"], ["current_time", "2100-12-32"]),
        ([*SHARED_TASK, "--current_time", "2100-12-31"], ["current_time"]),
        ([*SHARED_TASK, "--time_span", "-1"], ["time_span"]),
        ([*SHARED_TASK, "--start_year", "0"], ["start_year"]),
        (["--num_patient", "-1"], ["num_patient"]),
        (["--cur_patient_ratio", "1.1"], ["cur_patient_ratio"]),
        (["--cur_patient_ratio", "nan"], ["cur_patient_ratio"]),
        (["--db_name", "../x"], ["db_name"]),
    ],
)
def test_bad_options(tmp_path, arguments, words):
    source = tree(tmp_path / "tree")
    with pytest.raises(InputError) as caught:
        main(["--data_dir", str(source), "--out_dir", str(tmp_path / "out"), *arguments])
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_full_disk_leaves_the_older_database_and_nothing_else(tmp_path):
    labs = [f"1,11,50,2150-03-02 11:00:00,{i},u" for i in range(20_000)]
    source, out = tree(tmp_path / "tree", labevents=labs), tmp_path / "out"
    out.mkdir()
    (out / "mimic_iv.sqlite").write_text("older")
    result = subprocess.run(
        [sys.executable, "-m", "data_prep.build_ehr_db", "--data_dir", source, "--out_dir", out],
        capture_output=True,
        text=True,
        cwd=REPO,
        env=os.environ,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert result.returncode == 1
    assert "cannot write" in result.stderr and "Traceback" not in result.stderr
    assert [path.name for path in out.iterdir()] == ["mimic_iv.sqlite"]
    assert (out / "mimic_iv.sqlite").read_text() == "older"


PHASES = ["patients", "d_items", "labevents", "cost", "transfers", "indexes", "variants"]
ALL_OUTPUTS = ["--indexes", "--variants", "1"]
WHOLE_BEFORE = {"indexes": {"mimic_iv.sqlite"}, "variants": {"mimic_iv.sqlite", "mimic_iv_indexed.sqlite"}}


def build_until(phase: str, event: str, source: Path, out: Path) -> subprocess.CompletedProcess:
    """The command with all it writes, in a process of its own; the Python line ``event`` runs in ``phase``.

    That is at a table's end, or when the indexed copy or the variant is written and still to be changed.
    """
    program = f"""
import os, resource, signal, sys
from data_prep import build_ehr_db
from data_prep.mimic import indexes, progress, variants
from data_prep.common.errors import run_main
def watch(place, name, phase_of):
    function = getattr(place, name)
    def watched(*arguments):
        if phase_of(*arguments) == {phase!r}:
            {event}
        return function(*arguments)
    setattr(place, name, watched)
watch(progress.BuildProgress, "done", lambda self, table, rows: table)
watch(indexes, "closing", lambda copy: "indexes")
watch(variants, "_exchange_values", lambda built, seed: "variants")
run_main(build_ehr_db.main)
"""
    command = [sys.executable, "-c", program, "--data_dir", source, "--out_dir", out, *ALL_OUTPUTS]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True)


@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_any_phase_the_next_build_succeeds(tmp_path, phase):
    source, out = tree(tmp_path / "tree"), tmp_path / "out"
    killed = build_until(phase, "os.kill(os.getpid(), signal.SIGKILL)", source, out)
    assert killed.returncode == -signal.SIGKILL
    assert {path.name for path in out.iterdir() if ".partial" not in path.name} == WHOLE_BEFORE.get(phase, set())
    main(["--data_dir", str(source), "--out_dir", str(out), *ALL_OUTPUTS])
    assert {path.name for path in out.iterdir()} == WHOLE_BEFORE["variants"] | {"mimic_iv.variant1.sqlite"}
    assert len(select(out / "mimic_iv.sqlite", "SELECT * FROM transfers")) == 1


@pytest.mark.parametrize("phase", PHASES)
def test_disk_full_in_any_phase_leaves_what_was_whole(tmp_path, phase):
    labs = [f"1,11,50,2150-03-02 11:00:00,{value},u" for value in range(50)]  # for a variant to exchange
    source, out = tree(tmp_path / "tree", labevents=labs), tmp_path / "out"
    out.mkdir()
    for name in ("mimic_iv.sqlite", "mimic_iv_indexed.sqlite", "mimic_iv.variant1.sqlite"):
        (out / name).write_text("older")
    full = build_until(phase, "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))", source, out)
    assert full.returncode == 1
    assert full.stderr.count("\n") == 1 and "free space" in full.stderr
    older = {path.name for path in out.iterdir() if path.read_bytes() == b"older"}
    assert {path.name for path in out.iterdir()} - older == WHOLE_BEFORE.get(phase, set())
    assert len(list(out.iterdir())) == 3


def test_too_little_memory_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="memory"):
        build(tree(tmp_path / "tree"), tmp_path / "db.sqlite", BuildOptions(), memory_limit="1MB")
    with pytest.raises(InputError, match="memory_limit is 'much'"):
        build(tree(tmp_path / "tree"), tmp_path / "db.sqlite", BuildOptions(), memory_limit="much")


def test_each_file_has_a_bar_while_it_is_read(tmp_path):
    path = tmp_path / "labevents.csv.gz"
    path.write_bytes(bytes(1000))
    progress = BuildProgress(Console(quiet=True), [(path, 1000), (path, 1000)])
    bar, all_files = progress.tasks
    assert (bar.description, bar.total, all_files.total) == ("labevents.csv.gz", 1000, 2000)
    with path.open("rb", buffering=0) as file:
        for position in (1000, 250):  # read to its end, and once more
            file.seek(position)
            progress.get_renderables()
            assert (bar.completed, bar.visible, bar.finished) == (position, True, position == 1000)
    progress.get_renderables()
    assert not bar.visible and all_files.completed > 0


def test_files_that_cannot_be_looked_at_do_not_end_a_build(tmp_path, monkeypatch):
    progress = BuildProgress(Console(quiet=True), [(tmp_path / "labevents.csv.gz", 1000)])
    monkeypatch.setattr(psutil.Process, "open_files", Mock(side_effect=psutil.AccessDenied))
    progress.get_renderables()
    assert not progress.tasks[0].visible


def test_without_time_shift_a_line_says_what_that_means_for_the_questions(tmp_path, capsys):
    options = ["--data_dir", str(tree(tmp_path / "tree")), "--out_dir", str(tmp_path)]
    main(options)
    lines = [line for line in capsys.readouterr().out.splitlines() if "--timeshift" in line]
    assert len(lines) == 1
    assert all(words in lines[0] for words in ("this year", "about a fifth", "come out empty", "docs/real-data.md"))
    assert all(option in lines[0] for option in ('--current_time "2100-12-31 23:59:00"', "--start_year 2100"))
    main([*options, *SHARED_TASK])
    assert "--timeshift" not in capsys.readouterr().out


def test_final_line_names_the_output(tmp_path, capsys):
    main(["--data_dir", str(tree(tmp_path / "tree")), "--out_dir", str(tmp_path), "--db_name", "demo"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{tmp_path / 'demo.sqlite'}: 17 tables, ") and "rows" in last
