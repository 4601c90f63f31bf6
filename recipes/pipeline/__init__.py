"""The stages that all recipes share, and what runs them. Those of one recipe are in ``recipes/tasks``."""
