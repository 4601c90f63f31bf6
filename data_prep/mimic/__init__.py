"""MIMIC-IV tables to the EHRSQL database."""
