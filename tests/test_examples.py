"""The examples in docstrings print what they say."""

import doctest
import importlib
import sqlite3
from contextlib import closing

import pytest

MODULES = ["reward_fns.sql.text", "reward_fns.sql.sandbox", "reward_fns.ehrsql"]
MODULES += ["reward_fns.ecg", "reward_fns.ecg_grader.grade", "reward_fns.ecg_grader.reference"]
MODULES += ["data_prep.mimic.database"]


@pytest.mark.parametrize("module", MODULES)
def test_examples(tmp_path, module):
    path = tmp_path / "toy.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE patients (subject_id INTEGER); INSERT INTO patients VALUES (1), (2);")
    names = {"db_path": str(path), "folder": tmp_path}
    failed, attempted = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert attempted and not failed
