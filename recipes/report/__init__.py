"""What ``recipes.compare`` shows."""
