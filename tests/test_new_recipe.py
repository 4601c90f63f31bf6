"""The recipe of docs/new-recipe.md, built from that page in a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

PAGE = (REPO / "docs" / "new-recipe.md").read_text()
EVALUATE = """
import sys
from recipes import compare
from recipes.evaluate import evaluate, parser
from recipes.evaluation.generation import Response

test = sys.argv[1]
for label in ("yes", "no"):
    options = ["--recipe", "yes_no", "--dataset_path", test, "--model_name", label, "--output_dir", f"results/{label}"]
    always = lambda options: lambda prompts: [Response(label, 1, "stop") for _ in prompts]
    evaluate(parser().parse_args(options), always)
compare.main(["yes=results/yes", "no=results/no", "--out_dir", "comparison"])
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("new_recipe")
    for part in ("reward_fns", "data_prep", "recipes", "configs"):
        shutil.copytree(REPO / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    files = re.findall(r"^`([\w/.]+)`:\n\n```(?:python|yaml)\n(.*?)^```", PAGE, re.M | re.S)
    assert len(files) == 10
    for name, content in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (entry,) = re.findall(r"```python\n(Task\(.*?\n\))\n```", PAGE, re.S)
    registry = folder / "recipes" / "tasks" / "registry.py"
    text = registry.read_text()
    assert text.count("\n)\nTASKS = ") == 1
    registry.write_text(text.replace("\n)\nTASKS = ", f"\n{entry},\n)\nTASKS = "))
    return folder


def run(checkout: Path, *arguments: str) -> str:
    env = os.environ | {"HARDWARE": "cpu", "PYTHONPATH": str(checkout), "OUTPUT_DIR": str(checkout / "out")}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_recipe_prepares_grades_evaluates_and_compares(checkout):
    run(checkout, "-m", "data_prep.yes_no", "--out_dir", "parquet")
    printed = run(checkout, "-c", EVALUATE, "parquet/test.parquet")
    assert "always yes" in printed
    (path,) = (checkout / "results" / "yes").glob("*/*/results.json")
    results = json.loads(path.read_text())
    share = results["summary"]["accuracy"]
    assert 0 < share < 100
    assert results["summary"]["canaries"] == {
        "always yes": pytest.approx(share / 100),
        "always no": pytest.approx(1 - share / 100),
        "empty": 0,
    }
    assert results["summary"]["questions"] == 100
    assert "larger than" in (checkout / "comparison" / "comparison.html").read_text()


def test_its_stages_are_those_of_every_recipe(checkout):
    printed = run(checkout, "-m", "recipes.run", "yes_no", "--dry_run")
    stages = re.findall(r"^# (\w+)$", printed, re.M)
    trained = ["parquet", "model", "sft", "export_sft", "grpo", "export_grpo"]
    assert stages == [*trained, "evaluate", "card_sft", "card_grpo"]
    assert "reward_fns/yes_no.py" in printed or "yes_no_grpo" in printed


def test_every_program_takes_it(checkout):
    for module in ("recipes.evaluate", "recipes.train", "recipes.models", "recipes.doctor", "recipes.chat"):
        assert "yes_no" in run(checkout, "-m", module, "--help")
