"""Chat prompts for text-to-SQL, rendered from the templates in ``configs/prompts/ehrsql`` or from a user's own."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta

from data_prep.common.errors import InputError
from data_prep.sql.schema import compact_schema, full_schema
from reward_fns.sql.text import NOW

PROMPT_DIR = Path(__file__).resolve().parent.parent.parent / "configs" / "prompts" / "ehrsql"
BLOCKS = ("system", "user")


def prompt_names() -> list[str]:
    """The prompts one can ask for: every template whose name has no leading underscore."""
    return sorted(path.stem for path in PROMPT_DIR.glob("[!_]*.jinja"))


def is_template_path(prompt: str) -> bool:
    """Whether ``prompt`` is the path of a template, and not the name of one in ``PROMPT_DIR``."""
    return prompt.endswith((".jinja", ".jinja2"))


def template_files(prompt: str) -> list[Path]:
    """The files that ``prompt``, a name or a path, is rendered from; the template itself is the first.

    Raises:
        InputError: there is no such prompt.
    """
    path = Path(prompt) if is_template_path(prompt) else PROMPT_DIR / f"{prompt}.jinja"
    if is_template_path(prompt) and not path.is_file():
        raise InputError(f"no prompt template at {prompt}; check the path")
    if not is_template_path(prompt) and prompt not in prompt_names():
        raise InputError(
            f"unknown prompt {prompt!r}; choose one of {', '.join(prompt_names())} from {PROMPT_DIR}, or give the path "
            "of a .jinja file"
        )
    return [path, *sorted(PROMPT_DIR.glob("_*.jinja"))]


class PromptBuilder:
    """Turns a question into chat messages. ``prompt`` is the name of a template in ``PROMPT_DIR``, or a path.

    A template has two blocks, ``system`` and ``user``; an empty system block gives no system message.
    It sees ``question``, ``current_time``, ``compact_schema()``, ``full_schema()``, ``examples``
    (objects with ``question`` and ``answer``) and ``think``. A schema is read only if the template asks for it.
    ``takes_examples`` tells whether the template shows examples, ``asks_to_think`` whether it asks for reasoning in
    ``<think>``: ``reasoning`` always does, others may with ``think``. ``self.think``: the model is to think, because of
    ``think`` or of the template.

    Raises:
        InputError: there is no such prompt, or it is no template with these blocks.
    """

    def __init__(self, prompt: str, db_path: Path, think: bool = False):
        self._path, *_ = template_files(prompt)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader([self._path.parent, PROMPT_DIR]),
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            undefined=jinja2.StrictUndefined,
            autoescape=False,
        )
        try:
            self.template = environment.get_template(self._path.name)
            parsed = environment.parse(self._path.read_text(encoding="utf-8"))
        except jinja2.TemplateSyntaxError as error:
            raise InputError(f"{self._path}, line {error.lineno}: {error.message}; correct the template") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{self._path} is no UTF-8 text: {error}; write it again") from error
        if missing := [block for block in BLOCKS if block not in self.template.blocks]:
            raise InputError(
                f"the prompt template {self._path} has no block {missing[0]}; write "
                f"{{% block {missing[0]} %}}...{{% endblock %}}, as {PROMPT_DIR}/full_schema.jinja does"
            )
        self.takes_examples = "examples" in jinja2.meta.find_undeclared_variables(parsed)
        self.shared = {
            "current_time": NOW,  # what the grader puts for current_time in a query
            "compact_schema": functools.cache(lambda: compact_schema(db_path)),
            "full_schema": functools.cache(lambda: full_schema(db_path)),
            "think": think,
        }
        no_schema = {"compact_schema": str, "full_schema": str}
        self.asks_to_think = any("<think>" in text for text in self._texts({**self.shared, **no_schema}).values())
        self.think = think or self.asks_to_think

    def messages(self, question: str, examples: list[dict[str, str]] | None = None) -> list[dict[str, str]]:
        """``[{"role": "system" | "user", "content": text}, ...]`` for one question.

        Raises:
            InputError: the template asks for something that it does not see.
        """
        texts = self._texts(self.shared, question, examples or ())
        return [{"role": role, "content": text} for role, text in texts.items() if text]

    def _texts(
        self, shared: dict[str, Any], question: str = "", examples: Sequence[dict[str, str]] = ()
    ) -> dict[str, str]:
        """The text of each block."""
        context = self.template.new_context({**shared, "question": question, "examples": examples})
        try:
            return {role: "".join(self.template.blocks[role](context)).strip() for role in BLOCKS}
        except jinja2.TemplateError as error:
            known = ", ".join(("question", "examples", *shared))
            raise InputError(f"the prompt template {self._path}: {error.message}; a template sees {known}") from error
