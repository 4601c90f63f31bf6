"""What the evaluations of all recipes share."""
