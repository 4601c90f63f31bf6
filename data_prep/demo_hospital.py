"""The synthetic hospital: draws patients with their stays and events, as rows of MIMIC-IV's tables."""

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

# Each patient's first stay is dated so that a shift of it to this year, in whole 365-day years as
# ``build_ehr_db --timeshift --start_year 2100`` does, leaves the year's stays inside it.
SHIFTED_YEAR = 2100


@cache
def vocabulary() -> dict:
    """The lists that the hospital draws from (``demo_vocabulary.yaml``)."""
    return yaml.safe_load(Path(__file__).with_name("demo_vocabulary.yaml").read_text(encoding="utf-8"))


class Hospital:
    """Rows by file name in ``rows``: the dictionaries from the start, the rest patient by patient."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.words = vocabulary()
        self.rows: dict[str, list[dict]] = {name: [] for name in COLUMNS}
        self.used_ids: set[int] = set()
        self.tests: dict[str, int] = {}
        self._fill_dictionaries()

    # Small draws -----------------------------------------------------------------------------------------------

    def _add(self, name: str, **row) -> None:
        self.rows[name].append(row)

    def _pick(self, weights: dict):
        names = list(weights)
        shares = np.array([weights[name] for name in names], dtype=float)
        return names[self.rng.choice(len(names), p=shares / shares.sum())]

    def _one_of(self, items: list):
        return items[self.rng.integers(len(items))]

    def _new_id(self, prefix: int) -> int:
        while True:
            number = prefix * 1_000_000 + int(self.rng.integers(1_000_000))
            if number not in self.used_ids:
                self.used_ids.add(number)
                return number

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def _moment(self, start: datetime, end: datetime) -> datetime:
        """A whole minute in [start, end)."""
        minutes = max(1, int((end - start).total_seconds() // 60))
        return start + timedelta(minutes=int(self.rng.integers(minutes)))

    def _for_services(self, entries: list[list], services: list[str], column: int, count: int) -> list[list]:
        """``count`` different entries, most of them of the patient's services and some general ones."""
        weights = np.array([{"general": 1.0}.get(entry[column], 3.0 if entry[column] in services else 0.06)
                            for entry in entries])
        chosen = self.rng.choice(len(entries), size=min(count, len(entries)), replace=False, p=weights / weights.sum())
        return [entries[index] for index in chosen]

    # Dictionaries ----------------------------------------------------------------------------------------------

    def _fill_dictionaries(self) -> None:
        for file, entries in (("hosp/d_icd_diagnoses", "diagnoses"), ("hosp/d_icd_procedures", "procedures")):
            for code, version, _, title in self.words[entries]:
                self._add(file, icd_code=code, icd_version=version, long_title=title)
        for itemid, label, category, *_ in self.words["labs"]:
            self._add("hosp/d_labitems", itemid=itemid, label=label, fluid="Blood", category=category)
        for itemid, label, short, category, unit, *_ in self.words["vitals"]:
            self._add("icu/d_items", itemid=itemid, label=label, abbreviation=short, linksto="chartevents",
                      category=category, unitname=unit, param_type="Numeric")
        for linksto in ("inputs", "outputs"):
            for itemid, label, category, *_ in self.words[linksto]:
                self._add("icu/d_items", itemid=itemid, label=label, abbreviation=label, linksto=f"{linksto[:-1]}events",
                          category=category, unitname="mL", param_type="Numeric")

    # Patients and stays ----------------------------------------------------------------------------------------

    def admit_patient(self) -> None:
        """Add one patient with all stays and events. About one in seven is still in hospital as the year ends."""
        services = list(self.rng.choice(self.words["services"], size=self.rng.choice([1, 2], p=[0.6, 0.4]), replace=False))
        subject = self._new_id(90)
        year = int(self.rng.integers(2110, 2150))
        age = int(np.clip(self.rng.normal(62, 17), 18, 91))
        to_own_year = timedelta(days=365 * (year - SHIFTED_YEAR))
        stays = [(start + to_own_year, end + to_own_year) for start, end in self._stay_times()]
        died = self._chance(0.08) and stays[-1][1] - to_own_year < datetime(SHIFTED_YEAR, 12, 31)
        death = stays[-1][1] if died else None
        if not died and self._chance(0.05):
            death = stays[-1][1] + timedelta(days=int(self.rng.integers(20, 300)))
        self._add("hosp/patients", subject_id=subject, gender=self._one_of(["F", "M"]), anchor_age=age, anchor_year=year,
                  anchor_year_group=self._one_of(["2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019"]),
                  dod=death and death.date())
        levels = self.rng.normal(size=len(self.words["labs"]) + len(self.words["vitals"]))
        person = {"insurance": self._pick(self.words["insurances"]), "language": self._pick(self.words["languages"]),
                  "marital_status": self._pick(self.words["marital_statuses"]), "race": self._pick(self.words["races"])}
        for number, (start, end) in enumerate(stays):
            self._add_stay(subject, services, start, end, person, levels, died and number == len(stays) - 1)

    def _stay_times(self) -> list[tuple[datetime, datetime]]:
        """One to four stays of SHIFTED_YEAR in time order, without overlap; the last may end in the next January."""
        current = self._chance(0.15)
        # Leap days move a shifted date back by up to 13 days; a first stay after 20 January keeps its year.
        first_day, last_day = datetime(SHIFTED_YEAR, 1, 20), datetime(SHIFTED_YEAR, 12, 20)
        count = int(self.rng.choice([1, 2, 3, 4], p=[0.5, 0.28, 0.15, 0.07])) - current
        starts = sorted(self._moment(first_day, last_day) for _ in range(count))
        stays = []
        for start in starts:
            days = float(np.clip(self.rng.gamma(2.0, 3.0), 1.2, 21))
            end = start + timedelta(minutes=int(days * 1440))
            if (not stays or start > stays[-1][1] + timedelta(days=1)) and end < datetime(SHIFTED_YEAR, 12, 29):
                stays.append((start, end))
        if current or not stays:
            latest = max(stays[-1][1] if stays else last_day, datetime(SHIFTED_YEAR, 12, 21))
            start = self._moment(latest, datetime(SHIFTED_YEAR, 12, 30))
            stays.append((start, datetime(SHIFTED_YEAR + 1, 1, 1) + timedelta(minutes=int(self.rng.integers(600, 14400)))))
        return stays

    def _add_stay(self, subject: int, services: list[str], start: datetime, end: datetime, person: dict,
                  levels: np.ndarray, died: bool) -> None:
        hadm = self._new_id(92)
        kinds = self.words["admission_types"]
        kind = self._pick({name: weight for name, (weight, _) in kinds.items()})
        from_ed = kinds[kind][1] == "EMERGENCY ROOM"
        arrival = start - timedelta(minutes=int(self.rng.integers(90, 600))) if from_ed else None
        self._add("hosp/admissions", subject_id=subject, hadm_id=hadm, admittime=start, dischtime=end,
                  deathtime=end if died else None, admission_type=kind, admit_provider_id=self._provider(),
                  admission_location=kinds[kind][1],
                  discharge_location="DIED" if died else self._pick(self.words["discharge_locations"]),
                  edregtime=arrival, edouttime=start if from_ed else None, hospital_expire_flag=int(died), **person)
        ids = {"subject_id": subject, "hadm_id": hadm}
        self._add_diagnoses_and_procedures(ids, services, start, end)
        self._add_labs(ids, start, end, levels)
        self._add_prescriptions(ids, services, start, end)
        self._add_cultures(ids, start, end)
        self._add_units(ids, services, arrival, start, end, levels)

    def _provider(self) -> str:
        return "P" + "".join(self.rng.choice(list("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"), size=5))

    def _add_units(self, ids: dict, services: list[str], arrival: datetime | None, start: datetime, end: datetime,
                   levels: np.ndarray) -> None:
        """Transfers, and for about half of the stays an ICU stay with its events."""
        def move(kind: str, unit: str | None, begin: datetime, until: datetime | None) -> None:
            self._add("hosp/transfers", **ids, transfer_id=self._new_id(94), eventtype=kind, careunit=unit,
                      intime=begin, outtime=until)

        if arrival:
            move("ED", "Emergency Department", arrival, start)
        ward = self.words["wards"][services[0]]
        if self._chance(0.5):
            into = self._moment(start, start + (end - start) * 0.3)
            out = min(into + timedelta(minutes=int(1440 * np.clip(self.rng.gamma(2.0, 1.4), 0.8, 9))), end)
            unit = self.words["intensive_care_units"][services[0]]
            move("admit", ward, start, into)
            move("transfer", unit, into, out)
            if out < end:
                move("transfer", self._one_of(list(self.words["wards"].values())), out, end)
            stay = {**ids, "stay_id": self._new_id(93)}
            self._add("icu/icustays", **stay, first_careunit=unit, last_careunit=unit, intime=into, outtime=out,
                      los=round((out - into).total_seconds() / 86400, 4))
            self._add_vitals(stay, into, out, levels[len(self.words["labs"]):])
            self._add_fluids(stay, into, out, levels[-2])
        elif end - start > timedelta(days=3):
            change = self._moment(start + (end - start) * 0.2, start + (end - start) * 0.8)
            move("admit", ward, start, change)
            move("transfer", self._one_of(list(self.words["wards"].values())), change, end)
        else:
            move("admit", ward, start, end)
        move("discharge", None, end, None)

    # Events of a hospital stay ---------------------------------------------------------------------------------

    def _add_diagnoses_and_procedures(self, ids: dict, services: list[str], start: datetime, end: datetime) -> None:
        count = int(self.rng.integers(4, 12))
        for order, (code, version, *_) in enumerate(self._for_services(self.words["diagnoses"], services, 2, count), 1):
            self._add("hosp/diagnoses_icd", **ids, seq_num=order, icd_code=code, icd_version=version)
        count = int(self.rng.integers(1, 6))
        for order, (code, version, *_) in enumerate(self._for_services(self.words["procedures"], services, 2, count), 1):
            self._add("hosp/procedures_icd", **ids, seq_num=order, icd_code=code, icd_version=version,
                      chartdate=self._moment(start + timedelta(days=1), end).date())

    def _add_labs(self, ids: dict, start: datetime, end: datetime, levels: np.ndarray) -> None:
        for day in range((end - start).days + 1):
            drawn_today = {panel for panel, rate in self.words["panel_rates"].items() if self._chance(rate)}
            opening = start + timedelta(days=day)
            when = {panel: self._moment(opening, min(opening + timedelta(days=1), end)) for panel in sorted(drawn_today)}
            for (itemid, _, _, unit, low, high, mean, spread, decimals, panel), level in zip(self.words["labs"], levels):
                if panel not in drawn_today or self._chance(0.08):
                    continue
                value = round(max(mean + spread * (0.8 * level + 0.6 * self.rng.normal()), mean * 0.2), decimals)
                self._add("hosp/labevents", labevent_id=len(self.rows["hosp/labevents"]) + 1, **ids,
                          specimen_id=self._new_id(95), itemid=itemid, order_provider_id=self._provider(),
                          charttime=when[panel], storetime=when[panel] + timedelta(minutes=47), value=value,
                          valuenum=value, valueuom=unit, ref_range_lower=low, ref_range_upper=high,
                          flag=None if low <= value <= high else "abnormal", priority=self._one_of(["ROUTINE", "STAT"]))

    def _add_prescriptions(self, ids: dict, services: list[str], start: datetime, end: datetime) -> None:
        days = max(1, (end - start).days)
        for drug, _, unit, doses, routes, form in self._for_services(
            self.words["drugs"], services, 1, int(self.rng.integers(5, 14))
        ):
            route = self._one_of(routes)
            for _ in range(1 + int(self.rng.poisson(min(1.2, days / 6)))):
                begin = self._moment(start, end).replace(minute=0)
                dose = self._one_of(doses)
                self._add("hosp/prescriptions", **ids, pharmacy_id=self._new_id(96), order_provider_id=self._provider(),
                          starttime=max(begin, start.replace(minute=0)),
                          stoptime=begin + timedelta(hours=int(self.rng.integers(4, 73))), drug_type="MAIN", drug=drug,
                          formulary_drug_cd=drug[:4].upper() + str(dose), prod_strength=f"{dose} {unit} {form}",
                          dose_val_rx=dose, dose_unit_rx=unit, form_val_disp=1, form_unit_disp=form,
                          doses_per_24_hrs=int(self.rng.integers(1, 5)), route=route)

    def _add_cultures(self, ids: dict, start: datetime, end: datetime) -> None:
        for _ in range(int(self.rng.poisson(3))):
            specimen = self._one_of(list(self.words["specimens"]))
            kind = self.words["specimens"][specimen]
            moment = self._moment(start, end)
            result = moment + timedelta(days=2, hours=5)
            grown = self._one_of(kind["organisms"]) if self._chance(0.5) else None
            for order, test in enumerate(kind["tests"][: 1 + int(self.rng.integers(len(kind["tests"])))], 1):
                self._add("hosp/microbiologyevents", microevent_id=len(self.rows["hosp/microbiologyevents"]) + 1, **ids,
                          micro_specimen_id=self._new_id(97), order_provider_id=self._provider(),
                          chartdate=moment.replace(hour=0, minute=0), charttime=moment, spec_itemid=kind["id"],
                          spec_type_desc=specimen, test_seq=order, storedate=result.replace(hour=0, minute=0),
                          storetime=result, test_itemid=self.tests.setdefault(test, 90200 + len(self.tests)),
                          test_name=test, org_name=grown, comments=None if grown else "No growth.")

    # Events of an ICU stay -------------------------------------------------------------------------------------

    def _add_vitals(self, stay: dict, into: datetime, out: datetime, levels: np.ndarray) -> None:
        for (itemid, _, _, _, unit, mean, spread, noise, decimals, hours), level in zip(self.words["vitals"], levels):
            moment = self._moment(into, into + timedelta(hours=min(hours, 4)))
            while moment < out:
                value = mean + spread * level + noise * self.rng.normal()
                value = round(min(value, 100.0) if unit == "%" else value, decimals)
                self._add("icu/chartevents", **stay, caregiver_id=int(self.rng.integers(10_000, 99_999)), charttime=moment,
                          storetime=moment + timedelta(minutes=11), itemid=itemid, value=value, valuenum=value,
                          valueuom=unit, warning=0)
                moment += timedelta(hours=hours)

    def _add_fluids(self, stay: dict, into: datetime, out: datetime, level: float) -> None:
        days = (out - into).total_seconds() / 86400
        weight = round(82 + 18 * float(level), 1)
        for itemid, _, category, low, high, share in self.words["inputs"]:
            if not self._chance(share):
                continue
            for _ in range(1 + int(self.rng.poisson(2 * days))):
                amount, begin = int(self.rng.integers(low, high + 1)), self._moment(into, out)
                self._add("icu/inputevents", **stay, caregiver_id=int(self.rng.integers(10_000, 99_999)), starttime=begin,
                          endtime=begin + timedelta(minutes=60), storetime=begin, itemid=itemid, amount=amount,
                          amountuom="ml", rate=amount, rateuom="mL/hour", orderid=self._new_id(98),
                          ordercategoryname=category, ordercomponenttypedescription="Main order parameter",
                          ordercategorydescription="Continuous IV", patientweight=weight, totalamount=amount,
                          totalamountuom="ml", isopenbag=0, continueinnextdept=0,
                          statusdescription="FinishedRunning", originalamount=amount, originalrate=amount)
        for itemid, _, _, low, high, share in self.words["outputs"]:
            if not self._chance(share):
                continue
            for _ in range(1 + int(self.rng.poisson(4 * days))):
                moment = self._moment(into, out)
                self._add("icu/outputevents", **stay, caregiver_id=int(self.rng.integers(10_000, 99_999)),
                          charttime=moment, storetime=moment, itemid=itemid,
                          value=int(self.rng.integers(low, high + 1)), valueuom="ml")
