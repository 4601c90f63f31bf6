"""What the doctor checks for the EHRSQL recipe."""

from collections.abc import Mapping
from pathlib import Path

from recipes.checks import DEMO, Check


def check_data(environ: Mapping[str, str]) -> Check:
    """The questions and the database of the variables EHRSQL_DATA and EHR_DB."""
    name, questions, database = "EHRSQL data", environ.get("EHRSQL_DATA"), environ.get("EHR_DB")
    if not questions and not database:
        return Check(name, DEMO)
    if not questions or not database:
        missing = "EHR_DB" if questions else "EHRSQL_DATA"
        return Check(name, f"{missing} is not set", "fail", "set EHRSQL_DATA and EHR_DB, or neither for the demo")
    if not (Path(questions) / "train" / "data.json").is_file():
        remedy = "EHRSQL_DATA is a folder with {train,valid,test}/{data,label}.json"
        return Check(name, f"no {questions}/train/data.json", "fail", remedy)
    if not Path(database).is_file():
        return Check(name, f"no {database}", "fail", "EHR_DB is the SQLite file made by data_prep.build_ehr_db")
    return Check(name, f"{questions} on {database}")
