"""The variables that every use of a chat template is given; ``configs/chat_template.yaml`` says why."""

import functools
from pathlib import Path

import yaml

FILE = Path(__file__).resolve().parent.parent.parent / "configs" / "chat_template.yaml"


@functools.cache
def chat_template_variables() -> dict[str, str]:
    """Keyword arguments for a tokenizer's ``apply_chat_template``. Training gets the same through verl's config."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))
