"""A SQLite database's schema as text for a prompt, read from the database itself."""

import sqlite3
from contextlib import closing
from pathlib import Path

from data_prep.common.errors import InputError

SAMPLES_PER_COLUMN = 4
SAMPLED_ROWS = 1_000_000  # bounds the time on a full MIMIC-IV; the first rows of a table never change
LONGEST_SAMPLE = 60  # characters


def compact_schema(db_path: Path) -> str:
    """One line a table, in the order of creation: ``patients(row_id, subject_id, ...)``."""
    with closing(open_database(db_path)) as database:
        return "\n".join(
            f"{table}({', '.join(column['name'] for column in _columns(database, table))})"
            for table in table_names(database)
        )


def full_schema(db_path: Path) -> str:
    """One ``CREATE TABLE`` a table with types and keys, and the most frequent values behind each column.

    Numeric identifiers get no sample values: they say nothing about how a column is written.
    """
    with closing(open_database(db_path)) as database:
        return "\n".join(_create_table(database, table) for table in table_names(database))


def open_database(db_path: Path) -> sqlite3.Connection:
    """Open ``db_path`` read-only.

    Raises:
        InputError: the file is missing, unreadable, empty, not a SQLite database, or holds no table.
    """
    if not db_path.is_file():
        raise InputError(f"no database at {db_path}; build one with python -m data_prep.build_ehr_db")
    try:
        database = sqlite3.connect(f"{db_path.resolve().as_uri()}?mode=ro", uri=True)
        database.row_factory = sqlite3.Row
        database.text_factory = lambda text: text.decode(errors="ignore")
        tables = table_names(database)
    except sqlite3.Error as error:
        raise InputError(f"cannot read {db_path} as a SQLite database ({error}); build it again") from error
    if not tables:
        database.close()
        raise InputError(f"{db_path} holds no tables; build it again with python -m data_prep.build_ehr_db")
    return database


def table_names(database: sqlite3.Connection) -> list[str]:
    """In the order of creation."""
    rows = database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*' ORDER BY rowid"
    )
    return [row["name"] for row in rows]


def _columns(database: sqlite3.Connection, table: str) -> list[sqlite3.Row]:
    return database.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()


def _create_table(database: sqlite3.Connection, table: str) -> str:
    columns = _columns(database, table)
    foreign_keys = database.execute(f"PRAGMA foreign_key_list({_quoted(table)})").fetchall()
    primary_key = [column["name"] for column in sorted(columns, key=lambda c: c["pk"]) if column["pk"]]
    keys = [f"PRIMARY KEY ({', '.join(primary_key)})"] if primary_key else []
    # SQLite lists foreign keys in the reverse order of their declaration.
    keys += [f"FOREIGN KEY ({k['from']}) REFERENCES {k['table']}({k['to']})" for k in reversed(foreign_keys)]

    lines = []
    for column in columns:
        samples = [] if column["name"].endswith("id") else _samples(database, table, column["name"])
        comment = f" -- {', '.join(samples)}" if samples else ""
        lines.append((f"{column['name']} {column['type']}", comment))
    lines += [(key, "") for key in keys]
    commas = [","] * (len(lines) - 1) + [""]
    body = [f"  {text}{comma}{comment}" for (text, comment), comma in zip(lines, commas, strict=True)]
    return "\n".join([f"CREATE TABLE {table} (", *body, ");"])


def _samples(database: sqlite3.Connection, table: str, column: str) -> list[str]:
    """The most frequent short values as SQL literals, ties in the order of the value."""
    name = _quoted(column)
    rows = database.execute(
        f"SELECT quote(value) AS literal "
        f"FROM (SELECT {name} AS value FROM {_quoted(table)} LIMIT {SAMPLED_ROWS}) "
        f"WHERE length(value) <= {LONGEST_SAMPLE} "
        f"GROUP BY value ORDER BY count(*) DESC, value LIMIT {SAMPLES_PER_COLUMN}"
    )
    return [" ".join(row["literal"].split()) for row in rows]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
