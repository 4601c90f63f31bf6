"""The synthetic hospital: draws patients with their stays, wards and intensive-care units."""

from datetime import datetime, timedelta

import numpy as np

from data_prep.demo.events import (
    add_cultures,
    add_diagnoses_and_procedures,
    add_fluids,
    add_labs,
    add_prescriptions,
    add_vitals,
)
from data_prep.demo.records import Records

# Each patient's first stay is dated so that a shift of it to this year, in whole 365-day years as
# ``build_ehr_db --timeshift --start_year 2100`` does, leaves the year's stays inside it.
SHIFTED_YEAR = 2100


def fill_dictionaries(records: Records) -> None:
    """Add the rows of the four dictionaries: diagnoses, procedures, lab items, ICU items."""
    for file, entries in (("hosp/d_icd_diagnoses", "diagnoses"), ("hosp/d_icd_procedures", "procedures")):
        for code, version, _, title in records.words[entries]:
            records.add(file, icd_code=code, icd_version=version, long_title=title)
    for itemid, label, category, *_ in records.words["labs"]:
        records.add("hosp/d_labitems", itemid=itemid, label=label, fluid="Blood", category=category)
    for itemid, label, short, category, unit, *_ in records.words["vitals"]:
        records.add(
            "icu/d_items",
            itemid=itemid,
            label=label,
            abbreviation=short,
            linksto="chartevents",
            category=category,
            unitname=unit,
            param_type="Numeric",
        )
    for linksto in ("inputs", "outputs"):
        for itemid, label, category, *_ in records.words[linksto]:
            records.add(
                "icu/d_items",
                itemid=itemid,
                label=label,
                abbreviation=label,
                linksto=f"{linksto[:-1]}events",
                category=category,
                unitname="mL",
                param_type="Numeric",
            )


def admit_patient(records: Records) -> None:
    """Add one patient with all stays and events. About one in seven is still in hospital as the year ends."""
    count = records.pick({1: 0.6, 2: 0.4})
    services = list(records.rng.choice(records.words["services"], size=count, replace=False))
    subject = records.new_id(90)
    year = records.integer(2110, 2150)
    age = int(np.clip(records.rng.normal(62, 17), 18, 91))
    to_own_year = timedelta(days=365 * (year - SHIFTED_YEAR))
    stays = [(start + to_own_year, end + to_own_year) for start, end in _stay_times(records)]
    died = records.chance(0.08) and stays[-1][1] - to_own_year < datetime(SHIFTED_YEAR, 12, 31)
    death = stays[-1][1] if died else None
    if not died and records.chance(0.05):
        death = stays[-1][1] + timedelta(days=records.integer(20, 300))
    records.add(
        "hosp/patients",
        subject_id=subject,
        gender=records.one_of(["F", "M"]),
        anchor_age=age,
        anchor_year=year,
        anchor_year_group=records.one_of(["2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019"]),
        dod=death and death.date(),
    )
    levels = {kind: np.clip(records.rng.normal(size=len(records.words[kind])), -2, 2) for kind in ("labs", "vitals")}
    person = {
        "insurance": records.pick(records.words["insurances"]),
        "language": records.pick(records.words["languages"]),
        "marital_status": records.pick(records.words["marital_statuses"]),
        "race": records.pick(records.words["races"]),
    }
    for number, (start, end) in enumerate(stays):
        _add_stay(records, subject, services, start, end, person, levels, died and number == len(stays) - 1)


def _stay_times(records: Records) -> list[tuple[datetime, datetime]]:
    """One to four stays of SHIFTED_YEAR in time order, without overlap; the last may end in the next January."""
    current = records.chance(0.15)
    # Leap days move a shifted date back by up to 12 days; a first stay after 20 January keeps its year.
    first_day, last_day = datetime(SHIFTED_YEAR, 1, 20), datetime(SHIFTED_YEAR, 12, 20)
    count = records.pick({1: 0.5, 2: 0.28, 3: 0.15, 4: 0.07}) - current
    starts = sorted(records.moment(first_day, last_day) for _ in range(count))
    stays = []
    for start in starts:
        days = min(1.2 + records.rng.gamma(2.0, 2.4), 21)
        end = start + timedelta(minutes=int(days * 1440))
        if (not stays or start > stays[-1][1] + timedelta(days=1)) and end < datetime(SHIFTED_YEAR, 12, 29):
            stays.append((start, end))
    if current or not stays:
        latest = max(stays[-1][1] if stays else last_day, datetime(SHIFTED_YEAR, 12, 21))
        start = records.moment(latest, datetime(SHIFTED_YEAR, 12, 30))
        end = datetime(SHIFTED_YEAR + 1, 1, 1) + timedelta(minutes=records.integer(600, 14400))
        stays.append((start, end))
    return stays


def _add_stay(
    records: Records,
    subject: int,
    services: list[str],
    start: datetime,
    end: datetime,
    person: dict,
    levels: dict[str, np.ndarray],
    died: bool,
) -> None:
    hadm = records.new_id(92)
    kinds = records.words["admission_types"]
    kind = records.pick({name: weight for name, (weight, _) in kinds.items()})
    from_ed = kinds[kind][1] == "EMERGENCY ROOM"
    arrival = start - timedelta(minutes=records.integer(90, 600)) if from_ed else None
    records.add(
        "hosp/admissions",
        subject_id=subject,
        hadm_id=hadm,
        admittime=start,
        dischtime=end,
        deathtime=end if died else None,
        admission_type=kind,
        admit_provider_id=records.provider(),
        admission_location=kinds[kind][1],
        discharge_location="DIED" if died else records.pick(records.words["discharge_locations"]),
        edregtime=arrival,
        edouttime=start if from_ed else None,
        hospital_expire_flag=int(died),
        **person,
    )
    ids = {"subject_id": subject, "hadm_id": hadm}
    add_diagnoses_and_procedures(records, ids, services, start, end)
    add_labs(records, ids, start, end, levels["labs"])
    add_prescriptions(records, ids, services, start, end)
    add_cultures(records, ids, start, end)
    _add_units(records, ids, services, arrival, start, end, levels)


def _add_units(
    records: Records,
    ids: dict,
    services: list[str],
    arrival: datetime | None,
    start: datetime,
    end: datetime,
    levels: dict[str, np.ndarray],
) -> None:
    """Transfers, and for about half of the stays an ICU stay with its events."""

    def move(kind: str, unit: str | None, begin: datetime, until: datetime | None) -> None:
        records.add(
            "hosp/transfers",
            **ids,
            transfer_id=records.new_id(94),
            eventtype=kind,
            careunit=unit,
            intime=begin,
            outtime=until,
        )

    if arrival:
        move("ED", "Emergency Department", arrival, start)
    ward = records.words["wards"][services[0]]
    if records.chance(0.5):
        into = records.moment(start, start + (end - start) * 0.3)
        out = min(into + timedelta(minutes=int(1440 * (0.5 + records.rng.gamma(2.0, 1.2)))), end)
        unit = records.words["intensive_care_units"][services[0]]
        move("admit", ward, start, into)
        move("transfer", unit, into, out)
        if out < end:
            move("transfer", records.one_of(list(records.words["wards"].values())), out, end)
        stay = {**ids, "stay_id": records.new_id(93)}
        records.add(
            "icu/icustays",
            **stay,
            first_careunit=unit,
            last_careunit=unit,
            intime=into,
            outtime=out,
            los=round((out - into).total_seconds() / 86400, 4),
        )
        add_vitals(records, stay, into, out, levels["vitals"])
        add_fluids(records, stay, into, out)
    elif end - start > timedelta(days=3):
        change = records.moment(start + (end - start) * 0.2, start + (end - start) * 0.8)
        move("admit", ward, start, change)
        move("transfer", records.one_of(list(records.words["wards"].values())), change, end)
    else:
        move("admit", ward, start, end)
    move("discharge", None, end, None)
