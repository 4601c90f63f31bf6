"""EHRSQL's questions, gold queries and prompts."""
