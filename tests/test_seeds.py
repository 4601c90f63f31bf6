"""benchmarks.seeds: one table of several seeds."""

import json

import pytest

from benchmarks import seeds
from data_prep.common.errors import InputError


def write_summary(folder, questions: int, start: float, difference: float):
    figures = {"questions": questions, "value": start}
    better = figures | {
        "value": start + difference,
        "difference": difference,
        "low": difference - 2,
        "high": difference + 2,
    }
    content = {
        "runs": {"start": {"accuracy": figures}, "grpo": {"accuracy": better}},
        "curves": {"val-core/ehrsql/acc/mean@1": {"0": 0.4, "15": 0.5}, "critic/score/mean": {"1": 0.3}},
    }
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(content))
    return folder


def test_the_table_has_a_row_a_seed_and_model_and_the_mean_of_the_differences(tmp_path, capsys):
    folders = [write_summary(tmp_path / "a", 1000, 40, 10), write_summary(tmp_path / "b", 990, 50, 15)]
    seeds.main(["--seeds", f"0={folders[0]}", f"1={folders[1]}", "--chart", str(tmp_path / "chart.png")])
    assert capsys.readouterr().out.splitlines() == [
        "| seed | model | accuracy (990 to 1,000) |",
        "| --- | --- | ---: |",
        "| 0 | SFT on the teacher (start) | 40.0 |",
        "| 0 | GRPO | 50.0, +10.0 [+8.0, +12.0] |",
        "| 1 | SFT on the teacher (start) | 50.0 |",
        "| 1 | GRPO | 65.0, +15.0 [+13.0, +17.0] |",
        "| mean of 2 | GRPO | +12.5 |",
    ]
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"runs": {}}'])
def test_a_folder_without_a_summary_is_one_clear_line(tmp_path, content):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError, match="summary.json") as raised:
        seeds.main(["--seeds", f"0={tmp_path}", "--chart", str(tmp_path / "chart.png")])
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "chart.png").exists()
