import errno
import importlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys

import pytest
from conftest import REPO

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError


def write_folder(path, text="new"):
    with atomic_output(path, "mine.txt") as partial:
        partial.mkdir()
        (partial / "mine.txt").write_text(text)


def test_a_failure_leaves_the_older_output_and_nothing_else(tmp_path):
    (tmp_path / "out").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_output(tmp_path / "out") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "out").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_an_older_output_is_replaced_as_a_whole(tmp_path):
    write_folder(tmp_path / "out")
    (tmp_path / "out" / "left over").touch()
    write_folder(tmp_path / "out", "newer")
    assert [(path.name, path.read_text()) for path in (tmp_path / "out").iterdir()] == [("mine.txt", "newer")]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    write_folder(tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").is_file()


def test_a_folder_with_other_files_is_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        write_folder(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    write_folder(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_folder(tmp_path / "link", "newer")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "mine.txt").read_text() == "newer"


@pytest.mark.parametrize("target", ["folder", "/proc/out", "/proc/none/out", "x" * 300, "file/out"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as raised, atomic_output(tmp_path / target) as partial:
        partial.write_text("text")
    assert "\n" not in str(raised.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@pytest.mark.parametrize("place", ["{tmp}/file/none/out", "/proc/out"])
@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("make_demo_ecg", []),
        ("make_demo_ehr", []),
        ("make_demo_questions", ["--db", "{tmp}/database"]),
        ("ecg_expert_qa", ["--data_dir", "{tmp}/tree"]),
        ("ehrsql", ["--data_dir", "{tmp}/tree", "--db", "{tmp}/database"]),
    ],
)
def test_programs_say_at_once_where_they_cannot_write(tmp_path, program, options, place):
    (tmp_path / "file").touch()
    (tmp_path / "tree").mkdir()
    sqlite3.connect(tmp_path / "database").close()
    argv = [text.format(tmp=tmp_path) for text in (*options, "--out_dir", place)]
    with pytest.raises(InputError) as raised:
        importlib.import_module(f"data_prep.{program}").main(argv)
    assert re.fullmatch(r".*/file is not a folder; choose another|cannot write to /proc: .*", str(raised.value))
    assert sorted(os.listdir(tmp_path)) == ["database", "file", "tree"]


def test_a_full_disk_is_one_line_and_a_missing_input_is_not_taken_for_one(tmp_path):
    with pytest.raises(InputError, match="No space left"), atomic_output(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError), atomic_output(tmp_path / "out"):
        open(tmp_path / "no such input").close()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    program = """
import os, signal, sys
from data_prep.common.atomic import atomic_output
with atomic_output(sys.argv[1]) as partial:
    partial.write_text("half")
    partial.with_name(partial.name + ".spill").mkdir()
    partial.with_name(partial.name + "-journal").touch()
    partial.with_name(f".{partial.name}.partial-host-1").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "out")], cwd=REPO)
    assert killed.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 4
    with atomic_output(tmp_path / "out") as one, atomic_output(tmp_path / "other") as other:
        assert os.listdir(tmp_path) == []
        one.write_text("whole")
        other.write_text("whole")
        with atomic_output(tmp_path / "third") as third:
            third.write_text("whole")
        assert one.exists()
    assert sorted(os.listdir(tmp_path)) == ["other", "out", "third"]


def test_what_a_process_of_our_own_number_left_is_removed(tmp_path):
    name = f".out.partial-{socket.gethostname()}-{os.getpid()}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "half").touch()
    write_folder(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["mine.txt"]


def test_files_of_other_hosts_and_outputs_are_kept(tmp_path):
    host, dead = socket.gethostname(), 2**22 + 1  # above the largest process number of Linux
    kept = [f".out2.partial-{host}-{dead}", f".out.partial-{host}-{dead}.example.org-7", f".out.partial-x{host}-{dead}"]
    for name in (*kept, f".out.partial-{host}-{dead}"):
        (tmp_path / name).touch()
    with atomic_output(tmp_path / "out") as partial:
        partial.touch()
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "out"])
