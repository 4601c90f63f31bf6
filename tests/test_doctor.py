import shutil
import socket
import subprocess
import sys

import pytest
from conftest import REPO

from data_prep.common.errors import InputError
from recipes import doctor, hardware
from recipes.config import compose_config
from recipes.doctor import GB
from recipes.tasks.ecg import checks as ecg
from recipes.tasks.ehrsql import checks as ehrsql

H100 = hardware.Gpu("NVIDIA H100", 81559, "580.65.06")


@pytest.mark.parametrize(
    ("check", "status"),
    [
        (doctor.check_python((3, 9, 18)), "fail"),
        (doctor.check_python((3, 11, 0)), "ok"),
        (doctor.check_memory(7.9 * GB, 7 * GB), "fail"),
        (doctor.check_memory(11 * GB, 10 * GB), "warn"),
        (doctor.check_memory(24 * GB, 6 * GB), "warn"),
        (doctor.check_memory(24 * GB, 20 * GB), "ok"),
        (doctor.check_cores(1), "warn"),
        (doctor.check_cores(2), "ok"),
        (doctor.check_open_files(1024), "warn"),
        (doctor.check_open_files(1048576), "ok"),
        (doctor.check_open_files(-1), "ok"),
        (ehrsql.check_data({}), "ok"),
        (ehrsql.check_data({"EHRSQL_DATA": "questions"}), "fail"),
        (ehrsql.check_data({"EHR_DB": "mimic_iv.sqlite"}), "fail"),
        (ecg.check_data({}), "ok"),
        (ecg.check_data({"ECG_DATA": "/absent"}), "fail"),
        (doctor.check_model("tiny"), "ok"),
        (doctor.check_model("ecg/tiny"), "ok"),
        (doctor.check_model("ecg/sql_r1_3b"), "fail"),
        (doctor.check_model("ecg/gpu_model"), "fail"),
        (doctor.check_model("ekg/tiny"), "fail"),
        (doctor.check_model("tyni"), "fail"),
        (doctor.check_ray(None), "ok"),
        (doctor.check_other_runs([(7, ["bash", "-c", "grep recipes.trainer.main_ppo log"])]), "ok"),
        (doctor.check_other_runs([(7, ["python", "-m", "recipes.trainer.main_ppo"])]), "warn"),
        (doctor.check_other_runs([(7, ["VLLM::EngineCore"])]), "warn"),
    ],
)
def test_status_and_a_remedy_for_each_problem(check, status):
    assert check.status == status
    assert bool(check.remedy) == (status != "ok")
    assert "\n" not in check.found + check.remedy


def test_hardware(monkeypatch):
    monkeypatch.delenv("HARDWARE", raising=False)
    assert doctor.check_hardware([]).found == "cpu (no GPU)"
    assert doctor.check_hardware([H100]).found == "gpu (NVIDIA H100, 80 GiB, driver 580.65.06)"
    monkeypatch.setenv("HARDWARE", "gpu")
    assert doctor.check_hardware([]).status == "fail"
    monkeypatch.setenv("HARDWARE", "tpu")
    assert doctor.check_hardware([H100]).status == "fail"


def test_gpus_are_read_from_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.find_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559, 580.65.06'\necho 'NVIDIA GB10, [N/A], 580.65.06'\n")
    program.chmod(0o755)
    assert hardware.find_gpus() == [H100, hardware.Gpu("NVIDIA GB10", 0, "580.65.06")]
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert hardware.find_gpus() == []


def test_container_limit(tmp_path):
    limit = tmp_path / "memory.max"
    assert doctor.container_limit(limit) == float("inf")
    limit.write_text("max\n")
    assert doctor.container_limit(limit) == float("inf")
    limit.write_text("8000000000\n")
    assert doctor.container_limit(limit) == 8 * GB


def test_packages_follow_included_files(tmp_path):
    (tmp_path / "common.txt").write_text("# comment\npytest>=1   # tests\nno-such-package-here==1.0\n")
    top = tmp_path / "requirements.txt"
    top.write_text("-r common.txt\nrich==0.0.1\nabsent; sys_platform == 'never'\n")
    summary, missing, different = doctor.check_packages(top)
    assert summary.found == "1 of 3 as in requirements.txt"
    assert (missing.name, missing.status) == ("no-such-package-here", "fail")
    assert (different.name, different.status) == ("rich", "warn")
    assert "==0.0.1" in different.remedy
    assert doctor.check_packages(tmp_path / "absent.txt")[0].status == "fail"


def test_both_requirement_files_pin_verl():
    for name in ("requirements.txt", "requirements-cpu.txt"):
        pins = {item.name: str(item.specifier) for item in doctor.requirements(doctor.REPO / name)}
        assert pins["verl"].startswith("==")
        assert pins["torch"].startswith("==")


def test_disk(tmp_path, monkeypatch):
    folder = tmp_path / "not" / "there" / "yet"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * GB))
    assert doctor.check_disk(folder, needed_gb=2).status == "ok"
    assert doctor.check_disk(folder, needed_gb=10).status == "fail"
    assert not folder.exists()
    (tmp_path / "file").touch()
    assert doctor.check_disk(tmp_path / "file", needed_gb=2).status == "fail"


def test_data_names_what_is_missing(tmp_path):
    database = tmp_path / "mimic_iv.sqlite"
    assert "train/data.json" in ehrsql.check_data({"EHRSQL_DATA": str(tmp_path), "EHR_DB": str(database)}).found
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "data.json").touch()
    assert str(database) in ehrsql.check_data({"EHRSQL_DATA": str(tmp_path), "EHR_DB": str(database)}).found
    database.touch()
    assert ehrsql.check_data({"EHRSQL_DATA": str(tmp_path), "EHR_DB": str(database)}).status == "ok"


def test_ecg_data_has_one_of_its_files(tmp_path):
    assert ecg.check_data({"ECG_DATA": str(tmp_path)}).status == "fail"
    (tmp_path / "ECG Knowledge (Basic Q&A).json").touch()
    check = ecg.check_data({"ECG_DATA": str(tmp_path)})
    assert (check.status, check.found) == ("ok", f"1 of 11 files in {tmp_path}")


def test_a_preset_has_the_model_that_its_config_composes():
    for path in (doctor.CONFIG_DIR / "preset" / "ecg").glob("*.yaml"):
        if path.stem != "gpu_model":
            assert doctor.preset_model(path) == compose_config("ecg_grpo", [f"preset=ecg/{path.stem}"]).recipe.model


def test_each_recipe_has_its_own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("ECG_DATA", str(tmp_path / "absent"))
    failed = {
        recipe: [check.name for check in doctor.run_checks(tmp_path, recipe) if "absent" in check.found]
        for recipe in ("ehrsql", "ecg", None)
    }
    assert failed == {"ehrsql": [], "ecg": ["ECG data"], None: ["ECG data"]}


def test_model_of_a_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert doctor.check_model("qwen2_5_0_5b").status == "warn"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.check_model("qwen2_5_0_5b").status == "fail"
    (tmp_path / "hub" / "models--Qwen--Qwen2.5-0.5B-Instruct").mkdir(parents=True)
    assert doctor.check_model("qwen2_5_0_5b").status == "ok"
    # A model in a folder needs no hub.
    assert doctor.check_start_model(str(tmp_path)).status == "ok"


def test_shared_memory(tmp_path, monkeypatch):
    assert doctor.check_shared_memory(tmp_path / "absent").status == "warn"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(total=64 * 2**20))
    assert doctor.check_shared_memory(tmp_path).status == "warn"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(total=2**30))
    assert doctor.check_shared_memory(tmp_path).status == "ok"


def test_ray_cluster_must_answer(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert doctor.check_ray(address).status == "ok"
        assert doctor.check_ray(f"ray://{address}").status == "ok"
    assert doctor.check_ray(address).status == "fail"

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert hardware.ray_address() is None
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    assert hardware.ray_address() == address
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert hardware.ray_address() == "auto"


def test_exit_code(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "run_checks", lambda *arguments: [doctor.check_cores(1)])
    doctor.main([])
    assert "warn" in capsys.readouterr().out

    monkeypatch.setattr(doctor, "run_checks", lambda *arguments: [doctor.check_model("tyni"), doctor.check_cores(2)])
    with pytest.raises(InputError, match="can't run here: model: no preset tyni; set PRESET to one of"):
        doctor.main([])
    assert "fail" in capsys.readouterr().out


def test_every_check_runs_on_this_machine(tmp_path):
    checks = doctor.run_checks(tmp_path)
    assert len({check.name for check in checks}) == len(checks) >= 12
    assert all(check.status in doctor.STYLE for check in checks)


@pytest.mark.parametrize("program", ["recipes.doctor", "data_prep.download"])
def test_without_the_packages_one_line_says_how_to_install_them(program):
    command = [sys.executable, "-S", "-m", program]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "the packages are not installed here; run: bash scripts/setup.sh, then: source .venv/bin/activate\n"
    )
