"""Checks the reward function of a config by its file, without running the file."""

import ast
import difflib
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from data_prep.common.errors import InputError
from recipes.config import REPO

BLOCK = "reward.custom_reward_function"
PASSED = 4  # by verl: data_source, solution_str, ground_truth, extra_info


def reward_file(config: DictConfig) -> Path:
    """The absolute path of the file that a GRPO config names.

    Raises:
        InputError: the config names none.
    """
    if not (path := config.reward.custom_reward_function.path):
        raise InputError(f"{BLOCK}.path is {path}; name the file of the reward function")
    return REPO / Path(path).expanduser()


def check_reward_function(config: DictConfig) -> None:
    """Check the file, the name and the keyword arguments of a GRPO config: verl meets mistakes there after minutes.

    The arguments of a function that the file imports are not checked.

    Raises:
        InputError: there is no such file or function, or the function takes no such keyword argument.
    """
    path, block = reward_file(config), config.reward.custom_reward_function
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        reason = f"no such file: {path}" if isinstance(error, FileNotFoundError) else f"cannot read {path}: {error}"
        raise InputError(f"{reason}; check {BLOCK}.path") from error
    names = _names(tree)
    if block.name not in names and "*" not in names:
        raise InputError(f"{path} has no function {block.name}; {_near(block.name, names)}")
    keywords = block.get("reward_kwargs") or {}
    if not isinstance(keywords, Mapping):
        raise InputError(f"{BLOCK}.reward_kwargs is {keywords}; give names and values")
    function = names.get(block.name)
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.args.kwarg:
        return
    options = [each.arg for each in (*function.args.args[PASSED:], *function.args.kwonlyargs)]
    for keyword in keywords:
        if keyword not in options:
            raise InputError(f"{block.name} in {path} takes no keyword {keyword}; {_near(keyword, options)}")


def _names(tree: ast.Module) -> dict[str, ast.stmt]:
    """What the file defines or imports at its top level; ``*`` for all names of another file."""
    names: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return names


def _near(word: str, known: Mapping[str, object] | list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
