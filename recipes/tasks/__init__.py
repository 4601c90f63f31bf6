"""What is particular to each recipe, a package each."""
