"""The parts of ``recipes.chat``."""
