"""The streaming build equals a plain pandas build, cell by cell, with other options than the shared task's."""

from pathlib import Path

import pandas_ehr_build
import pytest
from ehr_trees import select

from data_prep.build_ehr_db import build
from data_prep.make_demo_ehr import make_tree
from data_prep.mimic.cohort import BuildOptions

OPTIONS = {
    "without time shift": dict(num_patient=1000, timeshift=False, cur_patient_ratio=0.0),
    "ICU patients over four years": dict(
        num_patient=40,
        timeshift=True,
        current_time="2101-06-30 12:00:00",
        start_year=2100,
        time_span=3,
        cur_patient_ratio=0.3,
        sample_icu_patient_only=True,
    ),
    "many current patients": dict(
        num_patient=25,
        timeshift=True,
        current_time="2090-09-09 09:09:09",
        start_year=2090,
        time_span=0,
        cur_patient_ratio=0.9,
    ),
}


def assert_equal_builds(tree: Path, folder: Path, options: dict) -> None:
    build(tree, folder / "ours.sqlite", BuildOptions(**options), memory_limit="300MB")
    pandas_ehr_build.build(tree, folder / "pandas.sqlite", **options)
    tables = [name for (name,) in select(folder / "pandas.sqlite", "SELECT name FROM sqlite_master WHERE type='table'")]
    assert len(tables) == 17
    for table in tables:
        ours, pandas = (select(folder / f"{name}.sqlite", f"SELECT * FROM {table}") for name in ("ours", "pandas"))
        assert list(map(repr, ours)) == list(map(repr, pandas)), table  # repr tells 1 from 1.0 and '1'


@pytest.mark.parametrize("name", OPTIONS)
def test_demo_tree(tmp_path, name):
    make_tree(tmp_path / "tree", patients=60)
    assert_equal_builds(tmp_path / "tree", tmp_path, OPTIONS[name])


@pytest.mark.parametrize("name", OPTIONS)
def test_mimic_iv_demo(shared_data, tmp_path, name):
    assert_equal_builds(shared_data / "mimic_iv_demo", tmp_path, OPTIONS[name])
