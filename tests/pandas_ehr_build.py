"""The EHRSQL-2024 database once more, in plain pandas: whole files in memory, one statement after another.

Written from the rules alone, except that the number parser is the same, to compare ``data_prep.build_ehr_db`` with:
cell by cell in the tests, in time and memory in ``benchmarks/build_ehr_db.py``.
``PYTHONPATH=. python tests/pandas_ehr_build.py DATA_DIR OUT [NUM_PATIENT]`` takes the shared task's other options.
"""

import io
import json
import random
import sqlite3
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.mimic.csv_files import parse_number

DATA_PREP = Path(__file__).resolve().parent.parent / "data_prep"
LABEL_HOME = json.loads((DATA_PREP / "mimic" / "label_home.json").read_text())
VITAL_SIGNS = [223762, 220277, 220045, 220210, 220050, 220051, 220052, 224639, 226730]
AMBIGUOUS = ["artificial insemination", "dental examination", "insertion of intrauterine contraceptive device"]
NUMBERS = ["valuenum", "value", "totalamount"]


def build(
    data_dir: Path,
    out: Path,
    num_patient: int = 100,
    timeshift: bool = True,
    current_time: str = "2100-12-31 23:59:00",
    start_year: int = 2100,
    time_span: int = 0,
    cur_patient_ratio: float = 0.1,
    sample_icu_patient_only: bool = False,
) -> None:
    rng = np.random.default_rng(0)
    tables = {}

    def read(name: str) -> pd.DataFrame:
        path = next(path for path in (data_dir / f"{name}.csv", data_dir / f"{name}.csv.gz") if path.exists())
        rows = pd.read_csv(path, dtype={"icd_code": str, "dose_val_rx": str}, low_memory=False)
        for column in rows.select_dtypes(["object", "str"]):
            rows[column] = rows[column].astype(str).where(rows[column].notna()).str.lower().str.strip()
        return rows

    # Patients, admissions and their times.
    patients, admissions, icustays = read("hosp/patients"), read("hosp/admissions"), read("icu/icustays")
    birth_year = patients["anchor_year"] - patients["anchor_age"]
    patients["dob"] = [str(birthday(year)) + " 00:00:00" for year in birth_year]
    patients["dod"] = pd.to_datetime(patients["dod"]).dt.strftime("%Y-%m-%d 00:00:00")
    people = patients.set_index("subject_id")
    anchor = people.loc[admissions["subject_id"]]
    admit_year = pd.to_datetime(admissions["admittime"]).dt.year
    admissions["age"] = admit_year - anchor["anchor_year"].to_numpy() + anchor["anchor_age"].to_numpy()
    original = admissions.set_index("hadm_id")[["admittime", "dischtime"]]
    if sample_icu_patient_only:
        admissions = admissions[admissions["subject_id"].isin(icustays["subject_id"])]

    years, weights = np.arange(start_year, start_year + time_span + 1), np.arange(1, time_span + 2)
    offset = {}
    if timeshift:
        for subject, first in admissions.groupby("subject_id", sort=False)["admittime"].min().items():
            year = rng.choice(years, p=weights / weights.sum())
            offset[subject] = pd.Timedelta(days=365 * int(year - int(first[:4])))

    def shift(rows: pd.DataFrame, *times: str, event: bool = False) -> pd.DataFrame:
        rows = rows.copy()
        for time in times if timeshift else ():
            moved = pd.to_datetime(rows[time], format="ISO8601") + rows["subject_id"].map(offset)
            moved = moved.dt.strftime("%Y-%m-%d %H:%M:%S")
            rows[time] = moved.where(moved <= current_time)
        rows = rows[rows[times[0]].notna()]
        return rows[rows[times[0]] >= f"{start_year}-01-01"] if timeshift and event else rows

    patients = shift(patients, "dob", "dod")
    admissions = shift(admissions, "admittime", "dischtime")
    if timeshift:
        admissions.loc[admissions["dischtime"].isna(), "discharge_location"] = None

    # The cohort.
    def draw(subjects: pd.Series, number: int) -> list[int]:
        try:
            return list(rng.choice(subjects.unique(), number, replace=False))
        except ValueError:
            return list(subjects.unique())

    number = int(num_patient * cur_patient_ratio)
    cohort = draw(admissions["subject_id"][admissions["dischtime"].isna()], number)
    over = admissions["subject_id"][admissions["dischtime"].notna() & ~admissions["subject_id"].isin(cohort)]
    cohort += draw(over, num_patient - number)
    tables["patients"] = patients[patients["subject_id"].isin(cohort)]
    admissions = tables["admissions"] = admissions[admissions["subject_id"].isin(cohort)]

    def of_cohort(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows["hadm_id"].isin(admissions["hadm_id"])]

    # Dictionaries.
    def icd(rows: pd.DataFrame) -> pd.Series:
        return "icd" + rows["icd_version"].astype(str) + "|" + rows["icd_code"]

    for name in ("d_icd_diagnoses", "d_icd_procedures"):
        rows = read(f"hosp/{name}").dropna(subset=["icd_code", "icd_version", "long_title"])
        rows["icd_code"] = icd(rows)
        if name == "d_icd_diagnoses":
            rows = rows[~rows["long_title"].isin(AMBIGUOUS)]
        tables[name] = rows.drop_duplicates("icd_code").drop_duplicates("long_title")

    def at_home(labels: pd.Series, table: str) -> pd.Series:
        return labels.notna() & labels.map(lambda label: LABEL_HOME.get(label, table) == table)

    labs, items = read("hosp/d_labitems"), read("icu/d_items")
    labs = tables["d_labitems"] = labs[at_home(labs["label"], "labevents")]
    items = items[items["linksto"].isin(["inputevents", "outputevents", "chartevents"])]
    items = tables["d_items"] = items[at_home(items["label"], "inputevents")]

    # Events.
    rows = of_cohort(read("hosp/diagnoses_icd").dropna(subset=["icd_code", "icd_version"]))
    rows = rows.assign(icd_code=icd(rows), charttime=rows["hadm_id"].map(original["admittime"]))
    rows = rows[rows["icd_code"].isin(tables["d_icd_diagnoses"]["icd_code"])]
    tables["diagnoses_icd"] = shift(rows, "charttime", event=True)

    rows = of_cohort(read("hosp/procedures_icd").dropna(subset=["icd_code", "icd_version"]))
    start, end = (rows["hadm_id"].map(original[column]) for column in ("admittime", "dischtime"))
    midnight = rows["chartdate"].str[:10] + " 00:00:00"
    rows = rows.assign(icd_code=icd(rows), charttime=midnight.mask((midnight < start) | (midnight > end), end))
    rows = rows[rows["icd_code"].isin(tables["d_icd_procedures"]["icd_code"])]
    tables["procedures_icd"] = shift(rows, "charttime", event=True)

    rows = of_cohort(read("hosp/labevents").dropna(subset=["hadm_id", "valuenum", "valueuom"]))
    tables["labevents"] = shift(rows[rows["itemid"].isin(labs["itemid"])], "charttime", event=True)

    rows = read("hosp/prescriptions")
    rows = rows.dropna(subset=["starttime", "stoptime", "drug", "dose_val_rx", "dose_unit_rx", "route"])
    rows["dose_val_rx"] = rows["dose_val_rx"].str.replace(",", "")
    rows = rows[rows["dose_val_rx"].str.isdecimal() & at_home(rows["drug"], "prescriptions")]
    counts = rows.groupby(["drug", "dose_unit_rx"], sort=False).size().reset_index(name="count")
    usual = counts.sort_values("count", ascending=False, kind="stable").drop_duplicates("drug").set_index("drug")
    rows = of_cohort(rows[rows["dose_unit_rx"] == rows["drug"].map(usual["dose_unit_rx"])])
    rows["dose_val_rx"] = [f"{int(dose)}.0" for dose in rows["dose_val_rx"]]
    tables["prescriptions"] = shift(rows, "starttime", "stoptime", event=True)

    costs = []
    charged = {"diagnoses_icd": "icd_code", "labevents": "itemid", "procedures_icd": "icd_code"}
    charged["prescriptions"] = "drug"
    for mean, (name, code) in zip(rng.poisson(10, 4), charged.items(), strict=True):
        rows = tables[name]
        price = {value: round(rng.normal(mean, 1.0), 2) for value in sorted(rows[code].unique())}
        time = rows["starttime" if name == "prescriptions" else "charttime"]
        cost = rows[["subject_id", "hadm_id"]].assign(chargetime=time, cost=rows[code].map(price))
        costs.append(cost.assign(event_type=name, event_id=np.arange(len(rows))))
    tables["cost"] = pd.concat(costs)

    rows = read("icu/chartevents")
    rows = rows[rows["itemid"].isin(VITAL_SIGNS)]
    rows = of_cohort(rows.dropna(subset=["stay_id", "charttime", "valuenum", "valueuom"]))
    tables["chartevents"] = shift(rows[rows["itemid"].isin(items["itemid"])], "charttime", event=True)
    for name, amount, unit, time in (
        ("inputevents", "totalamount", "totalamountuom", "starttime"),
        ("outputevents", "value", "valueuom", "charttime"),
    ):
        rows = of_cohort(read(f"icu/{name}").dropna(subset=["hadm_id", "stay_id", amount]))
        rows = rows[(rows[unit] == "ml") & rows["itemid"].isin(items["itemid"])]
        tables[name] = shift(rows, time, event=True)
    rows = of_cohort(read("hosp/microbiologyevents"))
    rows["charttime"] = rows["charttime"].fillna(rows["chartdate"].str[:10] + " 00:00:00")
    tables["microbiologyevents"] = shift(rows, "charttime", event=True)
    tables["icustays"] = shift(of_cohort(icustays), "intime", "outtime")
    tables["transfers"] = shift(of_cohort(read("hosp/transfers")), "intime", "outtime")
    write(out, tables)


def birthday(year: int) -> date:
    random.seed(0)
    days = (date(year + 1, 1, 1) - date(year, 1, 1)).days
    return date(year, 1, 1) + timedelta(days=random.randint(0, days))


def write(out: Path, tables: dict[str, pd.DataFrame]) -> None:
    out.unlink(missing_ok=True)
    with sqlite3.connect(out) as db:
        db.executescript((DATA_PREP / "mimic" / "schema.sql").read_text())
        for name, rows in tables.items():
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({name})")]
            rows = rows.assign(row_id=range(len(rows)))[columns]
            for column in rows.columns.intersection(NUMBERS):  # as an older pandas parsed them, twice
                rows[column] = [parse_number(repr(parse_number(repr(float(value))))) for value in rows[column]]
            # By way of a CSV file, in which some texts become NULL.
            types = {column: str for column in rows.select_dtypes(["object", "str"])}
            rows = pd.read_csv(io.StringIO(rows.to_csv(index=False)), dtype=types)
            rows.astype(object).where(rows.notna(), None).to_sql(name, db, if_exists="append", index=False)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
