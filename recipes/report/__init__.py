"""What ``recipes.compare`` and ``recipes.summary`` show."""
