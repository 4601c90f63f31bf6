"""What a user audits a database with: verified answers, rules explained, the schema as prompts hold it."""

import json
from collections import Counter
from pathlib import Path

import pytest
from ehr_trees import IN_2100, dump, select, tree

from data_prep.build_ehr_db import build, main
from data_prep.common.errors import InputError
from data_prep.make_demo_ehr import make_tree
from data_prep.mimic.cohort import BuildOptions
from data_prep.mimic.csv_files import MimicTree
from data_prep.mimic.explain import count_rules
from data_prep.mimic.source import EhrSource
from data_prep.mimic.tables import ADMISSIONS, LABEVENTS, TABLES, Table
from data_prep.mimic.variants import EXCHANGED
from data_prep.mimic.verify import compare_answers
from data_prep.sql.schema import full_schema

SPLIT_RATES = {"train": (4674, 98), "valid": (931, 13)}  # answerable questions, answers that differ


@pytest.mark.parametrize("split", SPLIT_RATES)
def test_published_answers_of_the_shared_task(shared_data, split):
    folder = shared_data / "ehrsql2024"
    compared = compare_answers(
        folder / "mimic_iv.sqlite", folder / split / "label.json", folder / split / "answer.json"
    )
    assert (len(compared), sum(not one.equal for one in compared)) == SPLIT_RATES[split]


@pytest.fixture
def db(tmp_path) -> Path:
    build(tree(tmp_path / "tree"), tmp_path / "db.sqlite", BuildOptions(**IN_2100))
    return tmp_path / "db.sqlite"


def write(folder: Path, labels: dict, answers: dict) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    for name, content in (("label", labels), ("answer", answers)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / "label.json", folder / "answer.json"


def test_answers_are_compared_as_the_grader_does_and_unanswerable_questions_left_out(db, tmp_path):
    labels = {
        "same": "SELECT valuenum FROM labevents",
        "rows in another order": "SELECT subject_id FROM admissions ORDER BY hadm_id",
        "other": "SELECT count(*) FROM patients JOIN admissions USING (subject_id)",
        "broken": "SELECT absent FROM patients",
        "unanswerable": "null",
    }
    answers = {"same": "[[1.5]]", "rows in another order": "[['2'], ['1']]", "other": "[[9]]", "broken": "[[1]]"}
    compared = compare_answers(db, *write(tmp_path / "s", labels, answers | {"unanswerable": "null"}))
    assert {one.id: one.equal for one in compared} == {
        "same": True,
        "rows in another order": True,
        "other": False,
        "broken": False,
    }
    assert compared[2].tables == {"patients", "admissions"}
    assert compared[3].here.startswith("error: no such column")


@pytest.mark.parametrize(
    ("labels", "answers", "words"),
    [
        ({"a": "SELECT 1"}, {}, "lacks 1 of the answers"),
        ({"a": "SELECT 1"}, {"a": "[[1"}, "answer to a is no list"),
        ({"a": "SELECT 1"}, [], "answer.json"),
        ({"a": "null"}, {"a": "null"}, "no gold query"),
    ],
)
def test_files_that_do_not_fit(db, tmp_path, labels, answers, words):
    with pytest.raises(InputError, match=words):
        compare_answers(db, *write(tmp_path / "s", labels, answers))


def counts(folder: Path, table: Table, options: dict = IN_2100) -> dict[str, int]:
    """Rows that each rule drops, the rules that drop none left out."""
    with EhrSource(MimicTree(folder), BuildOptions(**options), "1GB", folder / "spill") as source:
        left = count_rules(source, table)
    dropped = {rule: a - b for rule, a, b in zip(table.rules, left, left[1:], strict=False)}
    return {rule: number for rule, number in dropped.items() if number}


def test_each_dropped_row_is_counted_at_the_first_rule_that_drops_it(tmp_path):
    time = "2150-03-02 11:00:00"
    rows = [
        f"1,11,50,{time},1,u",
        f"9,91,50,{time},1,u",  # no such patient
        f"2,11,50,{time},1,u",  # another patient's admission
        f"1,12,50,{time},,u",  # of an admission after the current time
        f"1,11,50,{time},,u",
        f"1,11,99,{time},1,u",
        "1,11,50,,1,u",
        "1,11,50,2149-12-01 00:00:00,1,u",
    ]
    assert counts(tree(tmp_path / "tree", labevents=rows), LABEVENTS) == {
        "the patient stands in hosp/patients": 1,
        "the admission is the patient's and of the cohort": 2,
        "valuenum is given": 1,
        "it is in d_labitems": 1,
        "it starts by the current time": 1,
        "it starts in the start year or later": 1,
    }


def test_patients_without_icu_stay_are_counted(tmp_path):
    options = {"sample_icu_patient_only": True}
    dropped = counts(tree(tmp_path / "tree"), ADMISSIONS, options)
    assert dropped == {"with --sample_icu_patient_only, the patient has an ICU stay": 1}


def test_explain_ends_at_the_rows_of_the_database_and_schema_is_the_prompts_own(tmp_path, capsys):
    options = ["--data_dir", str(tree(tmp_path / "tree")), "--out_dir", str(tmp_path)]
    labels, answers = write(tmp_path / "dev", {"a": "SELECT 1 FROM patients"}, {"a": "[[2]]"})
    main([*options, "--explain", "--schema", "--verify", str(labels), str(answers)])
    printed = capsys.readouterr().out
    assert all(f"\n{table.name}: " in printed for table in TABLES[1:])
    assert full_schema(tmp_path / "mimic_iv.sqlite") in printed
    assert "0.0% of 1" in printed and 'dev a (patients): [["1.0"], ["1.0"]], published [["2.0"]]' in printed


def check_ids(variant: Path, of_original: set[int]) -> None:
    """The patients of a variant have ids of the database's, and every record is of the patient of its admission."""
    patients = [id for (id,) in select(variant, "SELECT subject_id FROM patients")]
    assert len({*patients}) == 16 and {*patients} <= of_original
    for table in ("diagnoses_icd", "labevents", "prescriptions", "chartevents", "icustays", "transfers", "cost"):
        ((records, right),) = select(
            variant,
            f"SELECT count(*), sum(e.subject_id = a.subject_id AND p.subject_id IS NOT NULL) FROM {table} AS e "
            "LEFT JOIN admissions AS a USING (hadm_id) LEFT JOIN patients AS p ON p.subject_id = e.subject_id",
        )
        assert records == right > 0, table
    stays = "SELECT count(*) FROM chartevents WHERE stay_id NOT IN (SELECT stay_id FROM icustays)"
    assert select(variant, stays) == [(0,)]


def test_half_of_the_patients_of_a_variant_have_the_records_of_others(tmp_path):
    """Here all patients are in all databases: 16 of 20, and the original's 20."""
    make_tree(tmp_path / "tree", patients=20)
    main(["--data_dir", str(tmp_path / "tree"), "--num_patient", "20", "--out_dir", str(tmp_path), "--variants", "1"])
    query = "SELECT subject_id, gender, dob FROM patients"
    before, after = (select(tmp_path / f"mimic_iv{name}.sqlite", query) for name in ("", ".variant1"))
    assert 4 <= len({*before} & {*after}) <= 12


def test_variants_differ_in_patients_times_and_values_and_keep_values_with_their_items(tmp_path):
    make_tree(tmp_path / "tree", patients=30)
    options = ["--data_dir", str(tmp_path / "tree"), "--num_patient", "20", "--timeshift", "--start_year", "2100"]
    options += ["--current_time", "2100-12-31 23:59:00", "--time_span", "0"]
    for out in ("a", "b"):
        main([*options, "--out_dir", str(tmp_path / out), "--variants", "2"])
    names = ["mimic_iv.sqlite", "mimic_iv.variant1.sqlite", "mimic_iv.variant2.sqlite"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert all(dump(tmp_path / "a" / name) == dump(tmp_path / "b" / name) for name in names)
    paths = [tmp_path / "a" / name for name in names]
    assert [select(path, "SELECT count(*) FROM patients") for path in paths] == [[(20,)], [(16,)], [(16,)]]
    for query in ("SELECT subject_id FROM patients", "SELECT hadm_id, admittime FROM admissions"):
        assert len({str(select(path, query)) for path in paths}) == 3
    for number in (1, 2):
        check_ids(paths[number], of_original={id for (id,) in select(paths[0], "SELECT subject_id FROM patients")})
    plain = dict(num_patient=16, seed=1, jitter_days=60, **IN_2100)
    build(tmp_path / "tree", tmp_path / "plain.sqlite", BuildOptions(**plain))
    for table, item, value in EXCHANGED:
        query = f"SELECT {item}, {value} FROM {table} ORDER BY row_id"
        before, after = select(tmp_path / "plain.sqlite", query), select(paths[1], query)
        assert Counter(before) == Counter(after) and before != after
