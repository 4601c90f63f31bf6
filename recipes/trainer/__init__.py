"""verl's GRPO trainer with more metrics and with alarms."""
