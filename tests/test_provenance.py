"""Which data count as the synthetic demo, as manifests and model cards say."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ehr_trees import tree

from data_prep import build_ehr_db, ecg_expert_qa, ehrsql, make_demo_ecg, make_demo_ehr, make_demo_questions
from data_prep.demo.provenance import holds_demo_patients

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("demo")
    make_demo_ehr.main(["--out_dir", str(work / "tree"), "--patients", "60"])
    build_ehr_db.main(["--data_dir", str(work / "tree"), "--out_dir", str(work)])
    make_demo_questions.make_questions(work / "mimic_iv.sqlite", work / "questions", dict.fromkeys(SPLITS, 60))
    return work


def synthetic(questions: Path, database: Path, out: Path) -> bool:
    """What the manifest says."""
    ehrsql.main(["--data_dir", str(questions), "--db", str(database), "--out_dir", str(out)])
    return json.loads((out / "manifest.json").read_text())["synthetic"]


def test_the_demo_is_synthetic_and_a_database_of_other_patients_is_not(demo, tmp_path):
    database = demo / "mimic_iv.sqlite"
    assert synthetic(demo / "questions", database, tmp_path / "demo") is True
    other = tmp_path / "other.sqlite"
    other.write_bytes(database.read_bytes())
    with closing(sqlite3.connect(other)) as db:
        db.execute("UPDATE patients SET subject_id = 10002428 WHERE row_id = 0")
        db.commit()
    assert synthetic(demo / "questions", other, tmp_path / "other") is False
    make_demo_questions.make_questions(other, tmp_path / "asked", dict.fromkeys(SPLITS, 60))
    texts = [(folder / "SYNTHETIC_questions.txt").read_text() for folder in (demo / "questions", tmp_path / "asked")]
    assert ["No real patient" in text for text in texts] == [True, False]
    (demo / "questions").rename(tmp_path / "given")
    (tmp_path / "given" / "SYNTHETIC_questions.txt").unlink()
    assert synthetic(tmp_path / "given", database, tmp_path / "out") is False


def test_a_database_of_another_schema_or_without_patients_holds_no_demo(tmp_path):
    build_ehr_db.main(["--data_dir", str(tree(tmp_path / "tree")), "--out_dir", str(tmp_path)])
    assert not holds_demo_patients(tmp_path / "mimic_iv.sqlite")
    with closing(sqlite3.connect(tmp_path / "empty.sqlite")) as db:
        db.execute("CREATE TABLE patients (subject_id INT)")
    assert not holds_demo_patients(tmp_path / "empty.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all" * 100)
    assert not holds_demo_patients(tmp_path / "text.sqlite")


def test_ecg_questions(tmp_path):
    make_demo_ecg.main(["--out_dir", str(tmp_path / "ecg"), "--questions", "100"])
    for name, expected in {"demo": True, "given": False}.items():
        ecg_expert_qa.main(["--data_dir", str(tmp_path / "ecg"), "--out_dir", str(tmp_path / name)])
        assert json.loads((tmp_path / name / "manifest.json").read_text())["synthetic"] is expected
        (tmp_path / "ecg" / "SYNTHETIC_ecg.txt").unlink(missing_ok=True)
