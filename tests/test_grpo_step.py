import json
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from benchmarks import grpo_step
from benchmarks.grpo_step import Figure, draw_rows, make_table, read_verl, run_process, summarise, with_other
from data_prep.common.errors import InputError


def log_of_verl(folder: Path, ends: list[float]) -> None:
    """What a run logs whose steps ended at these times."""
    with SummaryWriter(str(folder)) as log:
        for step, end in enumerate(ends, start=1):
            metrics = {"gen": 8.0 + step, "old_log_prob": 0.5, "update_actor": 7.0, "update_weights": 0.25}
            metrics |= {"reward/max": 0.125}
            for name, value in metrics.items():
                log.add_scalar(f"timing_s/{name}", value, step, walltime=end)
            log.add_scalar("response_length/mean", 43.0, step, walltime=end)
            log.add_scalar("actor/answers_with_advantage", 0.5, step, walltime=end)


def test_steps_of_a_verl_run(tmp_path):
    log_of_verl(tmp_path, [100.0, 120.0, 139.0])
    steps = list(map(with_other, read_verl(tmp_path, grpo_step.GRPO_METRICS)))
    common = {"update": 7.5, "weight sync": 0.25, "longest wait for a reward": 0.125, "response_tokens": 43.0}
    common |= {"updated": 0.5}
    assert steps == [
        pytest.approx({"seconds": 20.0, "generation": 10.0, "other": 2.25, **common}),
        pytest.approx({"seconds": 19.0, "generation": 11.0, "other": 0.25, **common}),
    ]


def test_figures_are_the_median_and_range_of_the_runs_means():
    runs = [[{"seconds": 1.0}, {"seconds": 3.0}], [{"seconds": 9.0}], [{"seconds": 4.0}]]
    assert summarise(runs) == {"seconds": Figure(4.0, 2.0, 9.0)}


def test_table():
    ours = {"seconds": Figure(8.0, 7.5, 8.25), "weight sync": Figure(0.25, 0.25, 0.25), "other": Figure(1.0, 1.0, 1.0)}
    theirs = {"seconds": Figure(16.0, 15.0, 18.0), "reward": Figure(0.5, 0.5, 0.5), "other": Figure(0.1, 0.1, 0.1)}
    console = Console(width=120, record=True)
    console.print(make_table({"verl": ours, "TRL": theirs}))
    lines = [line.replace("┃", "│").split("│") for line in console.export_text().splitlines()]
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:5]] for cells in lines if len(cells) > 4}
    assert rows[""] == ["verl", "TRL", "TRL / verl"]
    assert rows["a step, s"] == ["8.00 [7.50, 8.25]", "16.0 [15.0, 18.0]", "2.00"]
    assert rows["weight sync"] == ["0.25 [0.25, 0.25]", "", ""]
    assert rows["reward"] == ["", "0.50 [0.50, 0.50]", ""]
    assert rows["other"] == ["1.00 [1.00, 1.00]", "0.10 [0.10, 0.10]", ""]


def test_rows_are_drawn_alike_and_missing_ones_named(tmp_path):
    pq.write_table(pa.table({"n": list(range(100))}), tmp_path / "train.parquet")
    drawn = []
    for name in ("a", "b"):
        random.seed()
        draw_rows(tmp_path / "train.parquet", 32, tmp_path / name)
        drawn.append(pq.read_table(tmp_path / name)["n"].to_pylist())
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 32
    with pytest.raises(InputError, match="has 100 rows, but the steps need 101; lower --steps"):
        draw_rows(tmp_path / "train.parquet", 101, tmp_path / "c")
    with pytest.raises(InputError, match="no such file: .*valid.parquet"):
        draw_rows(tmp_path / "valid.parquet", 1, tmp_path / "c")


def test_a_process_that_fails_leaves_its_output(tmp_path, monkeypatch):
    monkeypatch.setattr(grpo_step.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match="verl ended with code 3; its output is in ") as error:
        run_process("verl", [sys.executable, "-c", "print('why'); exit(3)"], {}, tmp_path / "output.log")
    assert Path(str(error.value).split(" in ")[1]).read_text() == "why\n"


def test_both_sides_take_turns_on_the_same_rows(tmp_path, monkeypatch, capsys):
    """With stand-ins for the processes of the two sides."""
    started = []

    def stand_in(name, command, env, log):
        if name == "verl":
            started.append((name, [text for text in command if "train_files" in text]))
            log_of_verl(log.parent / "tensorboard", [100.0, 109.0, 117.0])
        else:
            settings = json.loads(Path(command[-2]).read_text())
            started.append((name, [f"data.train_files='{settings['rows']}'"]))
            assert (settings["prompts"], settings["rollouts"], settings["micro_batch"]) == (16, 4, 64)
            step = {"seconds": 17.0, "generation": 9.0, "reward": 0.5, "update": 7.0, "response_tokens": 43.0}
            Path(command[-1]).write_text(json.dumps({"versions": {"trl": "1"}, "steps": [step] * 3}))

    monkeypatch.setattr(grpo_step, "run_process", stand_in)
    monkeypatch.setattr(grpo_step, "trl_python", lambda python, venv: Path("python"))
    run, out_file = tmp_path / "run", tmp_path / "figures.json"
    for folder in ("data/parquet", "models/sft"):
        (run / folder).mkdir(parents=True)
    (run / "models/sft/config.json").write_text("{}")
    pq.write_table(pa.table({"n": list(range(100))}), run / "data/parquet/train.parquet")
    options = ["--run", str(run), "--steps", "3", "--repetitions", "2", "--out_file", str(out_file)]
    grpo_step.main([*options, "recipe.grpo.batch_size=16", "recipe.grpo.rollouts=4"])
    assert [name for name, _ in started] == ["verl", "TRL", "verl", "TRL"]
    assert len({str(files) for _, files in started}) == 1
    figures = json.loads(out_file.read_text())["figures"]
    assert figures["verl"]["seconds"] == {"median": 8.5, "low": 8.5, "high": 8.5}
    assert figures["TRL"]["other"]["median"] == 0.5
    assert "16 prompts x 4 rollouts" in capsys.readouterr().out
