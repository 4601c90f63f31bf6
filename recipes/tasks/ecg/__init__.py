"""The ECG recipe: its stages and its evaluation."""
