"""Data preparation: from raw data to parquet files for verl."""

import importlib.util
import sys

# A program imports packages first. Where they are missing, this line takes the place of a traceback.
if sys.argv[:1] == ["-m"] and importlib.util.find_spec("omegaconf") is None:
    sys.exit("the packages are not installed here; run: bash scripts/setup.sh, then: source .venv/bin/activate")
