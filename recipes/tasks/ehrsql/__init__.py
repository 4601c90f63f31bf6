"""The EHRSQL recipe: its stages and its evaluation."""
