"""What the doctor checks for the ECG recipe."""

from collections.abc import Mapping
from pathlib import Path

from data_prep.ecg.source import SCHEMAS
from recipes.checks import DEMO, Check


def check_data(environ: Mapping[str, str]) -> Check:
    """The files of the folder that the variable ECG_DATA names."""
    folder = environ.get("ECG_DATA")
    if not folder:
        return Check("ECG data", DEMO)
    remedy = "ECG_DATA is a checkout of ECG-Expert-QA, or a folder with some of its files"
    if not Path(folder).is_dir():
        return Check("ECG data", f"no folder {folder}", "fail", remedy)
    found = sum((Path(folder) / schema.file).is_file() for schema in SCHEMAS)
    return Check("ECG data", f"{found} of {len(SCHEMAS)} files in {folder}", *(() if found else ("fail", remedy)))
