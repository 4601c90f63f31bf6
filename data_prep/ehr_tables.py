"""The rules that turn MIMIC-IV's files into the 17 tables of the EHRSQL-2024 database.

The questions' gold answers hold for one database only, so each rule, and the order in which random numbers
are drawn, is that of the shared task's own pipeline (https://github.com/glee4810/ehrsql-2024).
"""

import json
import random
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.ehr_cohort import BuildOptions, TimeShift, draw_cohort
from data_prep.errors import InputError
from data_prep.mimic_csv import MimicTree

# Labels that occur in several of inputevents, labevents and prescriptions -> the one table that keeps them.
LABEL_HOME: dict[str, str] = json.loads(Path(__file__).with_name("label_home.json").read_text("utf-8"))

# Diagnosis titles that are procedure titles too.
AMBIGUOUS_TITLES = (
    "artificial insemination",
    "dental examination",
    "insertion of intrauterine contraceptive device",
)

# Body temperature, SaO2, heart rate, respiration, blood pressure (systolic, diastolic, mean), weight, height.
VITAL_SIGNS = (223762, 220277, 220045, 220210, 220050, 220051, 220052, 224639, 226730)


class EhrTables:
    """Iterating yields (table name, rows) for the 17 tables in the schema's order; it can be done once.

    ``row_id`` is a row's place in its frame, and rows stand in source order. Types are those of
    ``MimicTree.read``. Raises ``InputError`` where the tree's files contradict each other.
    """

    def __init__(self, tree: MimicTree, options: BuildOptions):
        self._tree = tree
        self._rng = np.random.default_rng(0)
        patients, admissions = tree.read("hosp/patients"), tree.read("hosp/admissions")
        icustays, transfers = tree.read("icu/icustays"), tree.read("hosp/transfers")
        _check_people(patients, admissions)
        self._new_ids = _new_ids(patients, admissions, icustays, transfers) if options.deid else {}

        birth_year = patients["anchor_year"] - patients["anchor_age"]
        patients["dob"] = birth_year.map({year: birth_date(year) for year in birth_year.unique()})
        birth_year.index = patients["subject_id"]
        admissions["age"] = admissions["admittime"].dt.year - admissions["subject_id"].map(birth_year)
        self._original = admissions.set_index("hadm_id")[["admittime", "dischtime"]]
        if options.sample_icu_patient_only:
            admissions = admissions[admissions["subject_id"].isin(icustays["subject_id"])]

        self._shift = TimeShift(admissions, options, self._rng)
        patients = self._shift.move(patients, "dob", "dod")
        admissions = self._shift.move(admissions, "admittime", "dischtime")
        if options.timeshift:
            place = admissions["discharge_location"].where(admissions["dischtime"].notna())
            admissions = admissions.assign(discharge_location=place)
        cohort = draw_cohort(admissions, options, self._rng)
        self._patients = patients[patients["subject_id"].isin(cohort)]
        self._admissions = admissions[admissions["subject_id"].isin(cohort)]
        self._icustays = self._of_cohort(self._shift.move(icustays, "intime", "outtime"))
        self._transfers = self._of_cohort(self._shift.move(transfers, "intime", "outtime"))

    def __iter__(self) -> Iterator[tuple[str, pd.DataFrame]]:
        for name, rows in self._tables():
            columns = self._new_ids.keys() & set(rows)
            yield name, rows.assign(**{column: rows[column].map(self._new_ids[column]) for column in columns})

    def _tables(self) -> Iterator[tuple[str, pd.DataFrame]]:
        yield "patients", self._patients
        yield "admissions", self._admissions
        diagnosis_titles = self._icd_titles("hosp/d_icd_diagnoses", without=AMBIGUOUS_TITLES)
        yield "d_icd_diagnoses", diagnosis_titles
        procedure_titles = self._icd_titles("hosp/d_icd_procedures")
        yield "d_icd_procedures", procedure_titles
        lab_items = self._tree.read("hosp/d_labitems", "label IS NOT NULL")
        lab_items = lab_items[belongs(lab_items["label"], "labevents")]
        yield "d_labitems", lab_items
        items = self._tree.read("icu/d_items", "label IS NOT NULL")
        items = items[items["linksto"].isin(["inputevents", "outputevents", "chartevents"])]
        items = items[belongs(items["label"], "inputevents")]
        yield "d_items", items

        diagnoses = self._diagnoses(diagnosis_titles["icd_code"])
        yield "diagnoses_icd", diagnoses
        procedures = self._procedures(procedure_titles["icd_code"])
        yield "procedures_icd", procedures
        labs = self._measurements("hosp/labevents", "charttime", lab_items, _not_null("valuenum", "valueuom"))
        yield "labevents", labs
        prescriptions = self._prescriptions()
        yield "prescriptions", prescriptions
        cost = self._cost(
            ("diagnoses_icd", diagnoses, "icd_code", "charttime"),
            ("labevents", labs, "itemid", "charttime"),
            ("procedures_icd", procedures, "icd_code", "charttime"),
            ("prescriptions", prescriptions, "drug", "starttime"),
        )
        yield "cost", cost

        needed = _not_null("stay_id", "charttime", "valuenum", "valueuom")
        needed = f"itemid IN {VITAL_SIGNS} AND {needed}"
        yield "chartevents", self._measurements("icu/chartevents", "charttime", items, needed)
        needed = _not_null("stay_id", "totalamount")
        inputs = self._measurements("icu/inputevents", "starttime", items, needed)
        yield "inputevents", inputs[inputs["totalamountuom"] == "ml"]
        needed = _not_null("stay_id", "value")
        outputs = self._measurements("icu/outputevents", "charttime", items, needed)
        yield "outputevents", outputs[outputs["valueuom"] == "ml"]
        yield "microbiologyevents", self._microbiology()
        yield "icustays", self._icustays
        yield "transfers", self._transfers

    def _of_cohort(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows["hadm_id"].isin(self._admissions["hadm_id"])]

    def _icd_titles(self, table: str, without: tuple[str, ...] = ()) -> pd.DataFrame:
        rows = self._tree.read(table, _not_null("icd_code", "icd_version", "long_title"))
        rows = rows.assign(icd_code=icd_code(rows))[~rows["long_title"].isin(without)]
        return rows.drop_duplicates("icd_code").drop_duplicates("long_title")

    def _measurements(self, table: str, time: str, items: pd.DataFrame, where: str) -> pd.DataFrame:
        rows = self._tree.read(table, where, self._of_cohort)
        return self._shift.move_events(rows[rows["itemid"].isin(items["itemid"])], time)

    def _diagnoses(self, codes: pd.Series) -> pd.DataFrame:
        """A diagnosis has no time of its own: it gets that of the admission."""
        rows = self._tree.read("hosp/diagnoses_icd", _not_null("icd_code", "icd_version"), self._of_cohort)
        admitted = rows["hadm_id"].map(self._original["admittime"])
        rows = rows.assign(icd_code=icd_code(rows), charttime=admitted)
        return self._shift.move_events(rows[rows["icd_code"].isin(codes)], "charttime")

    def _procedures(self, codes: pd.Series) -> pd.DataFrame:
        """A procedure has a date: its midnight counts if within the admission, else the discharge."""
        rows = self._tree.read("hosp/procedures_icd", _not_null("icd_code", "icd_version"), self._of_cohort)
        midnight = rows["chartdate"].dt.normalize()
        discharge = rows["hadm_id"].map(self._original["dischtime"])
        outside = (midnight < rows["hadm_id"].map(self._original["admittime"])) | (midnight > discharge)
        rows = rows.assign(icd_code=icd_code(rows), charttime=midnight.mask(outside, discharge))
        return self._shift.move_events(rows[rows["icd_code"].isin(codes)], "charttime")

    def _prescriptions(self) -> pd.DataFrame:
        """Whole-number doses in the drug's most frequent unit, which is counted over all patients."""
        counts = Counter()

        def keep(rows: pd.DataFrame) -> pd.DataFrame:
            dose = rows["dose_val_rx"].str.replace(",", "")
            valid = dose.str.isdecimal() & belongs(rows["drug"], "prescriptions")
            rows = rows.assign(dose_val_rx=dose)[valid.astype(bool)]
            counts.update(zip(rows["drug"], rows["dose_unit_rx"], strict=True))
            return self._of_cohort(rows)

        needed = _not_null("starttime", "stoptime", "drug", "dose_val_rx", "dose_unit_rx", "route")
        rows = self._tree.read("hosp/prescriptions", needed, keep)
        units = {}
        for (drug, unit), _ in counts.most_common():  # of equal counts, the first seen comes first
            units.setdefault(drug, unit)
        rows = rows[rows["dose_unit_rx"] == rows["drug"].map(units)]
        rows = rows.assign(dose_val_rx=rows["dose_val_rx"].map(float))  # EHRSQL-2024 has the text "100.0"
        return self._shift.move_events(rows, "starttime", "stoptime")

    def _cost(self, *events: tuple[str, pd.DataFrame, str, str]) -> pd.DataFrame:
        """One made-up price for each code. ``events``: four of (table, rows, code column, time column)."""
        parts = []
        for mean, (table, rows, code, time) in zip(self._rng.poisson(10, 4), events, strict=True):
            price = {value: round(self._rng.normal(mean, 1.0), 2) for value in sorted(rows[code].unique())}
            part = rows[["subject_id", "hadm_id"]].assign(event_type=table, event_id=range(len(rows)))
            parts.append(part.assign(chargetime=rows[time], cost=rows[code].map(price)))
        return pd.concat(parts, ignore_index=True)

    def _microbiology(self) -> pd.DataFrame:
        rows = self._tree.read("hosp/microbiologyevents", keep=self._of_cohort)
        rows = rows.assign(charttime=rows["charttime"].fillna(rows["chartdate"]))
        return self._shift.move_events(rows, "charttime")


def birth_date(year: int) -> pd.Timestamp:
    """A made-up birthday. The seed is set anew, so all leap years share one day, all other years another."""
    first = date(year, 1, 1)
    days_in_year = (date(year, 12, 31) - first).days + 1
    return pd.Timestamp(first + timedelta(days=random.Random(0).randint(0, days_in_year)))


def icd_code(rows: pd.DataFrame) -> pd.Series:
    return "icd" + rows["icd_version"].astype("int64").astype(str).astype(object) + "|" + rows["icd_code"]


def belongs(label: pd.Series, table: str) -> pd.Series:
    """Whether ``table`` is the home of each label; a label without a home belongs everywhere."""
    return label.map(lambda text: LABEL_HOME.get(text, table) == table).astype(bool)


def _not_null(*columns: str) -> str:
    return " AND ".join(f"{column} IS NOT NULL" for column in columns)


def _new_ids(*sources: pd.DataFrame) -> dict[str, pd.Series]:
    """For each id column, a series from old ids to 1..n in random order, from a generator of its own."""
    rng = np.random.default_rng(0)
    names = ("subject_id", "hadm_id", "stay_id", "transfer_id")
    old_ids = {name: np.unique(rows[name].dropna()) for name, rows in zip(names, sources, strict=True)}
    return {name: pd.Series(1 + rng.permutation(len(old)), index=old) for name, old in old_ids.items()}


def _check_people(patients: pd.DataFrame, admissions: pd.DataFrame) -> None:
    for table, rows, key, needed in (
        ("patients", patients, "subject_id", ["subject_id", "anchor_age", "anchor_year"]),
        ("admissions", admissions, "hadm_id", ["subject_id", "hadm_id"]),
    ):
        if rows.empty:
            raise InputError(f"hosp/{table} has no rows; give a MIMIC-IV tree with {table}")
        for column in needed:
            if rows[column].isna().any():
                raise InputError(f"hosp/{table} has rows without {column}; complete or remove them")
        twice = rows[key][rows[key].duplicated()]
        if len(twice):
            raise InputError(f"hosp/{table} has {key} {twice.iloc[0]} twice; keep one")
    if not (patients["anchor_year"] - patients["anchor_age"]).between(1, 9998).all():
        raise InputError("hosp/patients has an anchor_year - anchor_age that is no year; repair it")
    unknown = admissions["subject_id"][~admissions["subject_id"].isin(patients["subject_id"])]
    if len(unknown):
        raise InputError(f"hosp/admissions has subject_id {unknown.iloc[0]}, which hosp/patients lacks; add it")
