"""Chat prompts for text-to-SQL, rendered from the templates in ``configs/prompts/ehrsql``."""

import functools
from pathlib import Path

import jinja2

from data_prep.common.errors import InputError
from data_prep.sql.schema import compact_schema, full_schema
from reward_fns.sql.text import NOW

PROMPT_DIR = Path(__file__).resolve().parent.parent.parent / "configs" / "prompts" / "ehrsql"


def prompt_names() -> list[str]:
    """The prompts one can ask for: every template whose name has no leading underscore."""
    return sorted(path.stem for path in PROMPT_DIR.glob("[!_]*.jinja"))


def template_files(name: str) -> list[Path]:
    """The files that the prompt ``name`` is rendered from.

    Raises:
        InputError: there is no such prompt.
    """
    if name not in prompt_names():
        raise InputError(f"unknown prompt {name!r}; choose one of {', '.join(prompt_names())}")
    return [PROMPT_DIR / f"{name}.jinja", *sorted(PROMPT_DIR.glob("_*.jinja"))]


class PromptBuilder:
    """Turns a question into chat messages.

    A template has two blocks, ``system`` and ``user``; an empty system block gives no system message.
    It sees ``question``, ``current_time``, ``compact_schema()``, ``full_schema()`` and ``examples``
    (objects with ``question`` and ``answer``). A schema is read only if the template asks for it.
    """

    def __init__(self, name: str, db_path: Path):
        template_files(name)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(PROMPT_DIR),
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            undefined=jinja2.StrictUndefined,
            autoescape=False,
        )
        self.template = environment.get_template(f"{name}.jinja")
        self.shared = {
            "current_time": NOW,  # what the grader puts for current_time in a query
            "compact_schema": functools.cache(lambda: compact_schema(db_path)),
            "full_schema": functools.cache(lambda: full_schema(db_path)),
        }

    def messages(self, question: str, examples: list[dict[str, str]] | None = None) -> list[dict[str, str]]:
        """``[{"role": "system" | "user", "content": text}, ...]`` for one question."""
        context = self.template.new_context({**self.shared, "question": question, "examples": examples or []})
        texts = {role: "".join(self.template.blocks[role](context)).strip() for role in ("system", "user")}
        return [{"role": role, "content": text} for role, text in texts.items() if text]
