"""Synthetic patients, questions and teachers."""
