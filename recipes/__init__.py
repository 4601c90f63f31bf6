"""Programs around verl."""

import importlib.util
import sys

# The programs import packages at once: without those, python -m recipes.<program> would end in a traceback.
if sys.argv[:1] == ["-m"] and importlib.util.find_spec("omegaconf") is None:
    sys.exit("the packages are not installed here; run: bash scripts/setup.sh, then: source .venv/bin/activate")
