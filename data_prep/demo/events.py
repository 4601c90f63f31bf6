"""What happens to a synthetic patient during a hospital or ICU stay, as rows of MIMIC-IV's event tables.

``ids`` holds subject_id and hadm_id, ``stay`` stay_id too; a stay lasts from the first to the second time given.
"""

from datetime import datetime, timedelta

import numpy as np

from data_prep.demo.records import Records


def add_diagnoses_and_procedures(
    records: Records, ids: dict, services: list[str], start: datetime, end: datetime
) -> None:
    count = records.integer(4, 12)
    for order, (code, version, *_) in enumerate(
        records.for_services(records.words["diagnoses"], services, 2, count), 1
    ):
        records.add("hosp/diagnoses_icd", **ids, seq_num=order, icd_code=code, icd_version=version)
    count = records.integer(1, 6)
    for order, (code, version, *_) in enumerate(
        records.for_services(records.words["procedures"], services, 2, count), 1
    ):
        records.add(
            "hosp/procedures_icd",
            **ids,
            seq_num=order,
            icd_code=code,
            icd_version=version,
            chartdate=records.moment(start + timedelta(days=1), end).date(),
        )


def add_labs(records: Records, ids: dict, start: datetime, end: datetime, levels: np.ndarray) -> None:
    """Panels of labs day by day. ``levels``: how high the patient's values lie, in deviations from the mean."""
    for day in range((end - start).days + 1):
        drawn_today = {panel for panel, rate in records.words["panel_rates"].items() if records.chance(rate)}
        opening = start + timedelta(days=day)
        when = {panel: records.moment(opening, min(opening + timedelta(days=1), end)) for panel in sorted(drawn_today)}
        for lab, level in zip(records.words["labs"], levels, strict=True):
            itemid, _, _, unit, low, high, mean, spread, decimals, panel = lab
            if panel not in drawn_today or records.chance(0.08):
                continue
            value = round(max(mean + spread * (0.8 * level + 0.6 * records.rng.normal()), mean * 0.2), decimals)
            records.add(
                "hosp/labevents",
                labevent_id=len(records.rows["hosp/labevents"]) + 1,
                **ids,
                specimen_id=records.new_id(95),
                itemid=itemid,
                order_provider_id=records.provider(),
                charttime=when[panel],
                storetime=when[panel] + timedelta(minutes=47),
                value=value,
                valuenum=value,
                valueuom=unit,
                ref_range_lower=low,
                ref_range_upper=high,
                flag=None if low <= value <= high else "abnormal",
                priority=records.one_of(["ROUTINE", "STAT"]),
            )


def add_prescriptions(records: Records, ids: dict, services: list[str], start: datetime, end: datetime) -> None:
    days = max(1, (end - start).days)
    for drug, _, unit, doses, routes, form in records.for_services(
        records.words["drugs"], services, 1, records.integer(5, 14)
    ):
        route = records.one_of(routes)
        for _ in range(1 + records.rng.poisson(min(1.2, days / 6))):
            begin = records.moment(start, end).replace(minute=0)
            dose = records.one_of(doses)
            records.add(
                "hosp/prescriptions",
                **ids,
                pharmacy_id=records.new_id(96),
                order_provider_id=records.provider(),
                starttime=begin,
                stoptime=begin + timedelta(hours=records.integer(4, 73)),
                drug_type="MAIN",
                drug=drug,
                formulary_drug_cd=drug[:4].upper() + str(dose),
                prod_strength=f"{dose} {unit} {form}",
                dose_val_rx=dose,
                dose_unit_rx=unit,
                form_val_disp=1,
                form_unit_disp=form,
                doses_per_24_hrs=records.integer(1, 5),
                route=route,
            )


def add_cultures(records: Records, ids: dict, start: datetime, end: datetime) -> None:
    for _ in range(records.rng.poisson(3)):
        specimen = records.one_of(list(records.words["specimens"]))
        kind = records.words["specimens"][specimen]
        moment = records.moment(start, end)
        result = moment + timedelta(days=2, hours=5)
        grown = records.one_of(kind["organisms"]) if records.chance(0.5) else None
        for order, test in enumerate(kind["tests"][: records.integer(1, len(kind["tests"]) + 1)], 1):
            records.add(
                "hosp/microbiologyevents",
                microevent_id=len(records.rows["hosp/microbiologyevents"]) + 1,
                **ids,
                micro_specimen_id=records.new_id(97),
                order_provider_id=records.provider(),
                chartdate=_midnight(moment),
                charttime=moment,
                spec_itemid=kind["id"],
                spec_type_desc=specimen,
                test_seq=order,
                storedate=_midnight(result),
                storetime=result,
                test_itemid=records.test_ids[test],
                test_name=test,
                org_name=grown,
                comments=None if grown else "No growth.",
            )


def _midnight(moment: datetime) -> str:
    """The day as MIMIC-IV writes dates in columns of times; text, because pandas would drop the zeros."""
    return f"{moment:%Y-%m-%d} 00:00:00"


def add_vitals(records: Records, stay: dict, into: datetime, out: datetime, levels: np.ndarray) -> None:
    """The vital signs, each at its own interval. ``levels`` as in ``add_labs``."""
    for vital, level in zip(records.words["vitals"], levels, strict=True):
        itemid, _, _, _, unit, mean, spread, noise, decimals, hours = vital
        moment = records.moment(into, into + timedelta(hours=min(hours, 4)))
        while moment < out:
            value = max(mean + spread * level + noise * records.rng.normal(), mean / 2)
            value = round(min(value, 100.0) if unit == "%" else value, decimals)
            records.add(
                "icu/chartevents",
                **stay,
                caregiver_id=records.integer(10_000, 99_999),
                charttime=moment,
                storetime=moment + timedelta(minutes=11),
                itemid=itemid,
                value=value,
                valuenum=value,
                valueuom=unit,
                warning=0,
            )
            moment += timedelta(hours=hours)


def add_fluids(records: Records, stay: dict, into: datetime, out: datetime) -> None:
    """Intake and output in ml. No item is recorded twice in one minute, so that the first and the last are clear."""
    days = (out - into).total_seconds() / 86400
    for itemid, _, category, low, high, share in records.words["inputs"]:
        if not records.chance(share):
            continue
        for begin in records.moments(into, out, 1 + records.rng.poisson(2 * days)):
            amount = records.integer(low, high + 1)
            records.add(
                "icu/inputevents",
                **stay,
                caregiver_id=records.integer(10_000, 99_999),
                starttime=begin,
                endtime=begin + timedelta(minutes=60),
                storetime=begin,
                itemid=itemid,
                amount=amount,
                amountuom="ml",
                rate=amount,
                rateuom="mL/hour",
                orderid=records.new_id(98),
                ordercategoryname=category,
                ordercomponenttypedescription="Main order parameter",
                ordercategorydescription="Continuous IV",
                totalamount=amount,
                totalamountuom="ml",
                isopenbag=0,
                continueinnextdept=0,
                statusdescription="FinishedRunning",
                originalamount=amount,
                originalrate=amount,
            )
    for itemid, _, _, low, high, share in records.words["outputs"]:
        if not records.chance(share):
            continue
        for moment in records.moments(into, out, 1 + records.rng.poisson(4 * days)):
            records.add(
                "icu/outputevents",
                **stay,
                caregiver_id=records.integer(10_000, 99_999),
                charttime=moment,
                storetime=moment,
                itemid=itemid,
                value=records.integer(low, high + 1),
                valueuom="ml",
            )
