"""Programs around verl."""

import data_prep  # noqa: F401  checks that the packages are installed
