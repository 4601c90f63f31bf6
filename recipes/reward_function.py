"""Checks the reward function of a config by its file, without running the file."""

import ast
import difflib
from pathlib import Path

from omegaconf import DictConfig

from data_prep.common.errors import InputError
from recipes.config import CONFIG_DIR

REPO = CONFIG_DIR.parent


def reward_file(config: DictConfig) -> Path:
    """The absolute path of the file that a GRPO config names."""
    return REPO / Path(config.reward.custom_reward_function.path).expanduser()


def check_reward_function(config: DictConfig) -> None:
    """Check the file and the keyword arguments of a GRPO config: verl meets mistakes in them after minutes.

    A function that the file imports from elsewhere is not checked, and neither is one that takes any keyword.

    Raises:
        InputError: there is no such file, or the function takes no such keyword argument.
    """
    path, block = reward_file(config), config.reward.custom_reward_function
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        reason = f"no such file: {path}" if isinstance(error, FileNotFoundError) else f"cannot read {path}: {error}"
        raise InputError(f"{reason}; check reward.custom_reward_function.path") from error
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    if not (function := functions.get(block.name)) or function.args.kwarg:
        return
    options = [argument.arg for argument in function.args.kwonlyargs]
    known = {*options, *(argument.arg for argument in function.args.args)}
    for keyword in block.get("reward_kwargs") or {}:
        if keyword not in known:
            near = difflib.get_close_matches(keyword, options, 1)
            remedy = f"did you mean {near[0]}?" if near else f"it takes {', '.join(options)}"
            raise InputError(f"{block.name} in {path} takes no keyword {keyword}; {remedy}")
