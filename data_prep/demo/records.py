"""Rows of MIMIC-IV's tables in the making, and the random draws that they are made with."""

from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import yaml

# Columns of MIMIC-IV 2.2, file by file.
COLUMNS = {
    name: columns.split()
    for name, columns in {
        "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
        "hosp/admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id "
        "admission_location discharge_location insurance language marital_status race edregtime edouttime "
        "hospital_expire_flag",
        "hosp/transfers": "subject_id hadm_id transfer_id eventtype careunit intime outtime",
        "hosp/d_icd_diagnoses": "icd_code icd_version long_title",
        "hosp/d_icd_procedures": "icd_code icd_version long_title",
        "hosp/d_labitems": "itemid label fluid category",
        "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
        "hosp/procedures_icd": "subject_id hadm_id seq_num chartdate icd_code icd_version",
        "hosp/labevents": "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime "
        "value valuenum valueuom ref_range_lower ref_range_upper flag priority comments",
        "hosp/prescriptions": "subject_id hadm_id pharmacy_id poe_id poe_seq order_provider_id starttime stoptime "
        "drug_type drug formulary_drug_cd gsn ndc prod_strength form_rx dose_val_rx dose_unit_rx form_val_disp "
        "form_unit_disp doses_per_24_hrs route",
        "hosp/microbiologyevents": "microevent_id subject_id hadm_id micro_specimen_id order_provider_id chartdate "
        "charttime spec_itemid spec_type_desc test_seq storedate storetime test_itemid test_name org_itemid org_name "
        "isolate_num quantity ab_itemid ab_name dilution_text dilution_comparison dilution_value interpretation "
        "comments",
        "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
        "icu/d_items": "itemid label abbreviation linksto category unitname param_type lownormalvalue highnormalvalue",
        "icu/chartevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valuenum "
        "valueuom warning",
        "icu/inputevents": "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid amount "
        "amountuom rate rateuom orderid linkorderid ordercategoryname secondaryordercategoryname "
        "ordercomponenttypedescription ordercategorydescription patientweight totalamount totalamountuom isopenbag "
        "continueinnextdept statusdescription originalamount originalrate",
        "icu/outputevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valueuom",
    }.items()
}


@cache
def vocabulary() -> dict:
    """The lists that the hospital draws from (``vocabulary.yaml``)."""
    return yaml.safe_load(Path(__file__).with_name("vocabulary.yaml").read_text(encoding="utf-8"))


class Records:
    """Rows by file name in ``rows``; what they may hold in ``words``; one generator for all draws."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.words = vocabulary()
        self.rows: dict[str, list[dict]] = {name: [] for name in COLUMNS}
        self.used_ids: set[int] = set()
        tests = sorted({test for kind in self.words["specimens"].values() for test in kind["tests"]})
        self.test_ids = {test: 90200 + number for number, test in enumerate(tests)}

    def add(self, name: str, **row) -> None:
        self.rows[name].append(row)

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high)."""
        return int(self.rng.integers(low, high))

    def pick(self, weights: dict):
        """One of the keys, with chances in proportion to the values."""
        names = list(weights)
        shares = np.array([weights[name] for name in names], dtype=float)
        return names[self.rng.choice(len(names), p=shares / shares.sum())]

    def one_of(self, items: list):
        return items[self.rng.integers(len(items))]

    def new_id(self, prefix: int) -> int:
        """A number of eight digits, not given before, that starts with ``prefix``."""
        while True:
            number = prefix * 1_000_000 + int(self.rng.integers(1_000_000))
            if number not in self.used_ids:
                self.used_ids.add(number)
                return number

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def moment(self, start: datetime, end: datetime) -> datetime:
        """A whole minute in [start, end)."""
        minutes = max(1, int((end - start).total_seconds() // 60))
        return start + timedelta(minutes=int(self.rng.integers(minutes)))

    def moments(self, start: datetime, end: datetime, count: int) -> list[datetime]:
        """Up to ``count`` different whole minutes in [start, end), in order."""
        minutes = max(1, int((end - start).total_seconds() // 60))
        chosen = self.rng.choice(minutes, size=min(count, minutes), replace=False)
        return [start + timedelta(minutes=int(minute)) for minute in sorted(chosen)]

    def for_services(self, entries: list[list], services: list[str], column: int, count: int) -> list[list]:
        """``count`` different entries, most of them of the patient's services and some general ones."""
        weight = dict.fromkeys(self.words["services"], 0.06) | dict.fromkeys(services, 3.0) | {"general": 1.0}
        weights = np.array([weight[entry[column]] for entry in entries])
        chosen = self.rng.choice(len(entries), size=min(count, len(entries)), replace=False, p=weights / weights.sum())
        return [entries[index] for index in chosen]

    def provider(self) -> str:
        return "P" + "".join(self.rng.choice(list("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"), size=5))
