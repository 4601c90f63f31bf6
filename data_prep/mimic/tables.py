"""The rules that turn MIMIC-IV's files into the tables of the EHRSQL-2024 database, each as a query for DuckDB.

The questions' gold answers hold for one database only, so each rule is that of the shared task's own pipeline
(https://github.com/glee4810/ehrsql-2024). The queries read the views of ``data_prep.mimic.csv_files``, one a file, and
what ``data_prep.mimic.cohort`` makes; ``cost`` is made from other tables, by ``data_prep.mimic.cost``.
"""

import json
from dataclasses import dataclass
from pathlib import Path

# Labels that occur in several of inputevents, labevents and prescriptions -> the one table that keeps them.
LABEL_HOME: dict[str, str] = json.loads(Path(__file__).with_name("label_home.json").read_text("utf-8"))

# Cleaned text that is stored as NULL. The shared task's pipeline passed its tables through CSV files, where
# these became NULL only after the rules had counted them as values.
NULL_TEXT = ("", "-nan", "n/a", "nan", "null")

# Diagnosis titles that are procedure titles too.
AMBIGUOUS_TITLES = (
    "artificial insemination",
    "dental examination",
    "insertion of intrauterine contraceptive device",
)

# Body temperature, SaO2, heart rate, respiration, blood pressure (systolic, diastolic, mean), weight, height.
VITAL_SIGNS = (223762, 220277, 220045, 220210, 220050, 220051, 220052, 224639, 226730)

MACROS = f"""
    CREATE MACRO stored(cell) AS CASE WHEN clean(cell) NOT IN {NULL_TEXT} THEN clean(cell) END;
    CREATE MACRO written(moment) AS strftime(moment, '%Y-%m-%d %H:%M:%S');
    CREATE MACRO icd(version, code) AS 'icd' || version || '|' || clean(code);
    CREATE MACRO at_home(name, place) AS clean(name) NOT IN (SELECT label FROM label_home WHERE home <> place);
"""


@dataclass(frozen=True)
class Table:
    """A table of the database as SQL. ``rows`` is what follows FROM, with a column ``e.file_row``; a row stays if all
    ``rules`` hold (their names -> conditions); ``columns`` are those of the schema without row_id.

    ``file`` is the file that is read; ``before`` makes what the query looks up, and may read the file too. Rows come
    from the file as a stream, in its order; with ``sort`` they come from a small table that has none.
    """

    name: str
    file: str
    rows: str
    rules: dict[str, str]
    columns: str
    before: str = ""
    sort: bool = False

    def query(self) -> str:
        """All rows that stay, in source order; ``file_row`` is the last column."""
        order = "ORDER BY e.file_row" if self.sort else ""
        return f"SELECT {self.columns}, e.file_row FROM {self.rows} WHERE {self.condition} {order}"

    @property
    def condition(self) -> str:
        return " AND ".join(self.rules.values())


PATIENTS = Table(
    "patients",
    file="patients",
    rows="patient AS e",
    sort=True,
    rules={
        "the patient is drawn for the cohort": "subject_id IN (SELECT subject_id FROM chosen)",
        "the birth is by the current time": "moved(dob, days) IS NOT NULL",
    },
    columns="subject_id, stored(gender), written(moved(dob, days)), written(moved(dod, days))",
)

ADMISSIONS = Table(
    "admissions",
    file="admissions",
    rows="admissions AS e LEFT JOIN admission AS a ON a.hadm_id = e.hadm_id",
    rules={
        "with --sample_icu_patient_only, the patient has an ICU stay": "a.drawable",
        "it starts by the current time": "moved(e.admittime, a.days) IS NOT NULL",
        "the patient is drawn for the cohort": "e.subject_id IN (SELECT subject_id FROM chosen)",
    },
    columns="""
        e.subject_id, e.hadm_id, written(moved(e.admittime, a.days)), written(moved(e.dischtime, a.days)),
        stored(e.admission_type), stored(e.admission_location),
        if_over(stored(e.discharge_location), moved(e.dischtime, a.days)),
        stored(e.insurance), stored(e.language), stored(e.marital_status), a.age""",
)


def dictionary_of_icd(name: str, without: tuple[str, ...] = ()) -> Table:
    """Of rows with one code the first is kept, then of rows with one title. ``without``: titles to leave out."""
    unambiguous = f"title NOT IN {without}" if without else "true"
    return Table(
        name,
        file=name,
        before=f"""
            CREATE TABLE {name}_all AS
            WITH titles AS (
                SELECT file_row, icd(icd_version, icd_code) AS code, clean(long_title) AS title,
                    code IS NOT NULL AND title IS NOT NULL AS complete, {unambiguous} AS unambiguous
                FROM {name}),
            codes AS (
                SELECT *, file_row = min(file_row) FILTER (WHERE complete AND unambiguous) OVER (PARTITION BY code)
                    AS new_code
                FROM titles)
            SELECT *, file_row = min(file_row) FILTER (WHERE new_code) OVER (PARTITION BY title) AS new_title
            FROM codes""",
        rows=f"{name}_all AS e",
        sort=True,
        rules={
            "code, version and title are given": "complete",
            "the title is not left out": "unambiguous",
            "no row before has the code": "new_code",
            "no row before has the title": "new_title",
        },
        columns="code, stored(title)",
    )


D_ICD_DIAGNOSES = dictionary_of_icd("d_icd_diagnoses", without=AMBIGUOUS_TITLES)
D_ICD_PROCEDURES = dictionary_of_icd("d_icd_procedures")

D_LABITEMS = Table(
    "d_labitems",
    file="d_labitems",
    before="CREATE TABLE lab_item AS FROM d_labitems",
    rows="lab_item AS e",
    sort=True,
    rules={
        "label is given": "label IS NOT NULL",
        "the label is not at home in another table": "at_home(label, 'labevents')",
    },
    columns="itemid, stored(label)",
)

D_ITEMS = Table(
    "d_items",
    file="d_items",
    before="CREATE TABLE icu_item AS FROM d_items",
    rows="icu_item AS e",
    sort=True,
    rules={
        "label is given": "label IS NOT NULL",
        "linksto is inputevents, outputevents or chartevents": (
            "clean(linksto) IN ('inputevents', 'outputevents', 'chartevents')"
        ),
        "the label is not at home in another table": "at_home(label, 'inputevents')",
    },
    columns="itemid, stored(label), stored(abbreviation), stored(linksto)",
)

# An event moves with its admission. In the queries of events e is the event, c its admission, p its patient.
OF_COHORT = """
    LEFT JOIN cohort AS c ON c.subject_id = e.subject_id AND c.hadm_id = e.hadm_id
    LEFT JOIN patient AS p ON p.subject_id = e.subject_id"""
OF_COHORT_RULES = {
    "the patient stands in hosp/patients": "p.subject_id IS NOT NULL",
    "the admission is the patient's and of the cohort": "c.hadm_id IS NOT NULL",
}


def not_null(*columns: str) -> dict[str, str]:
    return {f"{column} is given": f"e.{column} IS NOT NULL" for column in columns}


def listed(expression: str, dictionary: Table, column: str) -> dict[str, str]:
    known = f"SELECT {column} FROM {dictionary.rows} WHERE {dictionary.condition}"
    return {f"it is in {dictionary.name}": f"{expression} IN ({known})"}


def in_time(start: str) -> dict[str, str]:
    return {
        "it starts by the current time": f"moved({start}, c.days) IS NOT NULL",
        "it starts in the start year or later": f"in_time(moved({start}, c.days))",
    }


DIAGNOSES_ICD = Table(
    "diagnoses_icd",
    file="diagnoses_icd",
    rows=f"diagnoses_icd AS e {OF_COHORT}",
    rules=OF_COHORT_RULES
    | not_null("icd_code", "icd_version")
    | listed("icd(icd_version, icd_code)", D_ICD_DIAGNOSES, "code")
    | in_time("c.admittime"),  # a diagnosis has no time of its own
    columns="e.subject_id, e.hadm_id, icd(icd_version, icd_code), written(moved(c.admittime, c.days))",
)

# A procedure has a date: its midnight counts if within the admission, else the discharge.
PROCEDURE_TIME = """
    CASE WHEN date_trunc('day', chartdate) < c.admittime OR date_trunc('day', chartdate) > c.dischtime THEN c.dischtime
    ELSE date_trunc('day', chartdate) END"""

PROCEDURES_ICD = Table(
    "procedures_icd",
    file="procedures_icd",
    rows=f"procedures_icd AS e {OF_COHORT}",
    rules=OF_COHORT_RULES
    | not_null("icd_code", "icd_version")
    | listed("icd(icd_version, icd_code)", D_ICD_PROCEDURES, "code")
    | in_time(PROCEDURE_TIME),
    columns=f"e.subject_id, e.hadm_id, icd(icd_version, icd_code), written(moved({PROCEDURE_TIME}, c.days))",
)

LABEVENTS = Table(
    "labevents",
    file="labevents",
    rows=f"labevents AS e {OF_COHORT}",
    rules=OF_COHORT_RULES
    | not_null("valuenum", "valueuom")
    | listed("e.itemid", D_LABITEMS, "itemid")
    | in_time("e.charttime"),
    columns="""
        e.subject_id, e.hadm_id, e.itemid, written(moved(e.charttime, c.days)),
        number(e.valuenum, e.file_row, 'valuenum'), stored(e.valueuom)""",
)

DOSE = "replace(clean(e.dose_val_rx), ',', '')"
GIVEN = not_null("starttime", "stoptime", "drug", "dose_val_rx", "dose_unit_rx", "route")
WHOLE_DOSE = {"the dose is a whole number": f"regexp_full_match({DOSE}, '[0-9]+')"}

PRESCRIPTIONS = Table(
    "prescriptions",
    file="prescriptions",
    # Counted over all patients; of equal counts the unit that is seen first. Cells are cleaned once for all equal ones.
    before=f"""
        CREATE TABLE drug_unit AS
        WITH cells AS (
            SELECT drug, dose_unit_rx, dose_val_rx, count(*) AS doses, min(file_row) AS first_row
            FROM prescriptions AS e WHERE {" AND ".join(GIVEN.values())} GROUP BY ALL),
        cleaned AS (
            SELECT clean(drug) AS name, clean(dose_unit_rx) AS unit, sum(doses) AS doses, min(first_row) AS first_row
            FROM cells AS e WHERE {" AND ".join(WHOLE_DOSE.values())} GROUP BY ALL),
        usual AS (SELECT name, arg_max(unit, (doses, -first_row)) AS unit FROM cleaned GROUP BY name)
        SELECT drug, unit FROM (SELECT DISTINCT drug FROM cells) JOIN usual ON name = clean(drug)""",
    rows=f"prescriptions AS e {OF_COHORT} LEFT JOIN drug_unit AS u ON u.drug = e.drug",
    rules=OF_COHORT_RULES
    | GIVEN
    | WHOLE_DOSE
    | {
        "the drug is not at home in another table": "at_home(e.drug, 'prescriptions')",
        "the unit is the drug's most frequent one": "clean(e.dose_unit_rx) = u.unit",
    }
    | in_time("e.starttime"),
    # EHRSQL-2024 has the text "100.0" for a dose.
    columns=f"""
        e.subject_id, e.hadm_id, written(moved(e.starttime, c.days)), written(moved(e.stoptime, c.days)),
        stored(e.drug), CAST({DOSE} AS DOUBLE), stored(e.dose_unit_rx), stored(e.route)""",
)

CHARTEVENTS = Table(
    "chartevents",
    file="chartevents",
    rows=f"chartevents AS e {OF_COHORT}",
    rules={"it is one of nine vital signs": f"e.itemid IN {VITAL_SIGNS}"}
    | OF_COHORT_RULES
    | not_null("stay_id", "charttime", "valuenum", "valueuom")
    | listed("e.itemid", D_ITEMS, "itemid")
    | in_time("e.charttime"),
    columns="""
        e.subject_id, e.hadm_id, e.stay_id, e.itemid, written(moved(e.charttime, c.days)),
        number(e.valuenum, e.file_row, 'valuenum'), stored(e.valueuom)""",
)

INPUTEVENTS = Table(
    "inputevents",
    file="inputevents",
    rows=f"inputevents AS e {OF_COHORT}",
    rules=OF_COHORT_RULES
    | not_null("stay_id", "totalamount")
    | {"the amount is in ml": "clean(e.totalamountuom) = 'ml'"}
    | listed("e.itemid", D_ITEMS, "itemid")
    | in_time("e.starttime"),
    columns="""
        e.subject_id, e.hadm_id, e.stay_id, written(moved(e.starttime, c.days)), e.itemid,
        number(e.totalamount, e.file_row, 'totalamount'), stored(e.totalamountuom)""",
)

OUTPUTEVENTS = Table(
    "outputevents",
    file="outputevents",
    rows=f"outputevents AS e {OF_COHORT}",
    rules=OF_COHORT_RULES
    | not_null("stay_id", "value")
    | {"the amount is in ml": "clean(e.valueuom) = 'ml'"}
    | listed("e.itemid", D_ITEMS, "itemid")
    | in_time("e.charttime"),
    columns="""
        e.subject_id, e.hadm_id, e.stay_id, written(moved(e.charttime, c.days)), e.itemid,
        number(e.value, e.file_row, 'value'), stored(e.valueuom)""",
)

MICROBIOLOGYEVENTS = Table(
    "microbiologyevents",
    file="microbiologyevents",
    rows=f"microbiologyevents AS e {OF_COHORT}",
    rules=OF_COHORT_RULES | in_time("coalesce(e.charttime, e.chartdate)"),
    columns="""
        e.subject_id, e.hadm_id, written(moved(coalesce(e.charttime, e.chartdate), c.days)),
        stored(e.spec_type_desc), stored(e.test_name), stored(e.org_name)""",
)

STAY_RULES = OF_COHORT_RULES | {"it starts by the current time": "moved(e.intime, c.days) IS NOT NULL"}

ICUSTAYS = Table(
    "icustays",
    file="icustays",
    rows=f"icustays AS e {OF_COHORT}",
    rules=STAY_RULES,
    columns="""
        e.subject_id, e.hadm_id, e.stay_id, stored(e.first_careunit), stored(e.last_careunit),
        written(moved(e.intime, c.days)), written(moved(e.outtime, c.days))""",
)

TRANSFERS = Table(
    "transfers",
    file="transfers",
    rows=f"transfers AS e {OF_COHORT}",
    rules=STAY_RULES,
    columns="""
        e.subject_id, e.hadm_id, e.transfer_id, stored(e.eventtype), stored(e.careunit),
        written(moved(e.intime, c.days)), written(moved(e.outtime, c.days))""",
)

TABLES = (
    *(PATIENTS, ADMISSIONS, D_ICD_DIAGNOSES, D_ICD_PROCEDURES, D_LABITEMS, D_ITEMS),
    *(DIAGNOSES_ICD, PROCEDURES_ICD, LABEVENTS, PRESCRIPTIONS),
    *(CHARTEVENTS, INPUTEVENTS, OUTPUTEVENTS, MICROBIOLOGYEVENTS, ICUSTAYS, TRANSFERS),
)
