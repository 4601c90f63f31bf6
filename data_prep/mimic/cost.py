"""The ``cost`` table: one made-up price for each code, as EHRSQL-2024 draws it, made within SQLite."""

import sqlite3

import numpy as np

# The tables that cost something, in the order of their rows: table, code column, time column.
CHARGED = (
    ("diagnoses_icd", "icd_code", "charttime"),
    ("labevents", "itemid", "charttime"),
    ("procedures_icd", "icd_code", "charttime"),
    ("prescriptions", "drug", "starttime"),
)


def fill_cost(db: sqlite3.Connection, rng: np.random.Generator) -> int:
    """Fill ``cost`` from the tables that cost something; return its number of rows."""
    rows = 0
    for mean, (table, code, time) in zip(rng.poisson(10, 4), CHARGED, strict=True):
        codes = sorted(value for (value,) in db.execute(f"SELECT DISTINCT {code} FROM {table}"))
        prices = [(value, round(rng.normal(mean, 1.0), 2)) for value in codes]
        db.execute("CREATE TEMP TABLE price (code PRIMARY KEY, cost REAL)")
        db.executemany("INSERT INTO price VALUES (?, ?)", prices)
        filled = db.execute(f"""
            INSERT INTO cost
            SELECT {rows} + row_id, subject_id, hadm_id, '{table}', row_id, {time},
                (SELECT cost FROM price WHERE code = {table}.{code})
            FROM {table} NOT INDEXED ORDER BY rowid""")
        rows += filled.rowcount
        db.execute("DROP TABLE price")
    return rows
