"""The examples in docstrings print what they say."""

import doctest
import importlib
import sqlite3
from contextlib import closing

import pytest

from data_prep import make_demo_ehr

MODULES = ["reward_fns.sql.text", "reward_fns.sql.sandbox", "reward_fns.ehrsql"]
MODULES += ["reward_fns.ecg", "reward_fns.ecg_grader.grade", "reward_fns.ecg_grader.reference"]
MODULES += ["data_prep.mimic.database", "data_prep.sql.reasoning"]
MODULES += [f"recipes.tasks.ehrsql.{name}" for name in ("error_kinds", "sql_clauses", "sql_diff")]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A MIMIC-IV tree of 20 synthetic patients."""
    folder = tmp_path_factory.mktemp("examples") / "tree"
    make_demo_ehr.main(["--out_dir", str(folder), "--patients", "20"])
    return folder


@pytest.mark.parametrize("module", MODULES)
def test_examples(tmp_path, tree, module):
    path = tmp_path / "toy.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE patients (subject_id INTEGER); INSERT INTO patients VALUES (1), (2);")
    names = {"db_path": str(path), "folder": tmp_path, "tree": tree}
    failed, attempted = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert attempted and not failed
