import gzip
import random
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_prep import download
from data_prep.common.checksum import sha256_file
from data_prep.common.errors import InputError
from data_prep.download import CHUNK_BYTES, DATASETS, EHRSQL_CHECKSUMS, MIMIC_FILES, main


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves a folder; ``bytes=N-`` ranges, and on demand breaks off after some bytes of a file."""

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        start = self.headers.get("Range")
        self.server.requests.append((path.name, start))
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        first = int(start.removeprefix("bytes=").removesuffix("-")) if start and self.server.ranges else 0
        if first >= len(content):
            return self.send_error(416)
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        end = self.server.break_after.pop(path.name, len(content))
        self.wfile.write(content[first:end])

    def log_message(self, *_):
        pass


def write_checksums(folder: Path) -> None:
    lines = [f"{sha256_file(folder / name)} {name}\n" for name in MIMIC_FILES]
    (folder / "SHA256SUMS.txt").write_text("".join(lines))


@pytest.fixture
def mirror(tmp_path):
    """A folder laid out like the MIMIC-IV demo's page, with checksums."""
    folder = tmp_path / "mirror"
    for name in MIMIC_FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(f"content of {name}\n".encode() * 50, mtime=0))
    write_checksums(folder)
    return folder


@pytest.fixture
def server(mirror, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=mirror))
    server.requests, server.ranges, server.break_after = [], True, {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(server, out: Path, dataset: str = "mimic-iv-demo", *options: str) -> None:
    main([dataset, "--out_dir", str(out), "--accept_license", "--base_url", server.url, *options])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_fetches_every_file_and_names_the_licence(server, mirror, tmp_path, capsys):
    fetch(server, tmp_path / "out")
    expected = files(mirror)
    del expected["SHA256SUMS.txt"]
    assert files(tmp_path / "out") == expected
    assert "Open Data Commons Open Database License v1.0" in capsys.readouterr().out


def test_files_that_are_there_are_not_fetched_again(server, tmp_path):
    fetch(server, tmp_path / "out")
    (tmp_path / "out" / "hosp" / "patients.csv.gz").write_bytes(b"damaged")
    server.requests.clear()
    fetch(server, tmp_path / "out")
    assert server.requests == [("SHA256SUMS.txt", None), ("patients.csv.gz", None)]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_is_resumed(server, mirror, tmp_path, ranges):
    source = mirror / "hosp" / "labevents.csv.gz"
    source.write_bytes(random.Random(0).randbytes(3 * CHUNK_BYTES))
    write_checksums(mirror)
    server.ranges = ranges
    server.break_after[source.name] = 2 * CHUNK_BYTES + 5
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no connection to .* run the command again to resume"):
        fetch(server, out)
    assert not (out / "hosp" / source.name).exists()
    kept = (out / "hosp" / f"{source.name}.partial").read_bytes()
    assert len(kept) >= 2 * CHUNK_BYTES and source.read_bytes().startswith(kept)
    fetch(server, out)
    assert (source.name, f"bytes={len(kept)}-") in server.requests
    assert (out / "hosp" / source.name).read_bytes() == source.read_bytes()
    assert not list(out.rglob("*.partial"))


def test_a_partial_file_longer_than_the_whole_is_replaced(server, mirror, tmp_path):
    partial_file = tmp_path / "out" / "icu" / "d_items.csv.gz.partial"
    partial_file.parent.mkdir(parents=True)
    partial_file.write_bytes(b"x" * 10_000)
    fetch(server, tmp_path / "out")
    assert sha256_file(tmp_path / "out" / "icu" / "d_items.csv.gz") == sha256_file(mirror / "icu" / "d_items.csv.gz")


def test_a_wrong_checksum_is_one_line_and_keeps_nothing(server, mirror, tmp_path):
    (mirror / "hosp" / "patients.csv.gz").write_bytes(b"other content")
    with pytest.raises(InputError, match="patients.csv.gz has SHA-256 .* changed upstream"):
        fetch(server, tmp_path / "out")
    assert not list((tmp_path / "out" / "hosp").glob("patients*"))


def test_changed_questions_are_noticed(server, mirror, tmp_path):
    (mirror / "LICENSE").write_text("another licence")
    with pytest.raises(InputError, match="LICENSE has SHA-256"):
        fetch(server, tmp_path / "out", "ehrsql")


@pytest.fixture
def small_ehrsql(mirror, monkeypatch):
    """EHRSQL-2024's larger files, one of them the database, with content of our own."""
    contents = {"data/mimic_iv/train/annotated.json": b"[]\n", "data/mimic_iv/mimic_iv.sqlite": b"SQLite"}
    for name, content in contents.items():
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_bytes(content)
    # git hash-object says so.
    names = ["fe51488c7066f6687ef680d6bfaa4f7768ef205c", "8c7090ee4937b1bfdca231aa59afb8e034c39ea5"]
    questions, database = ({name: value} for name, value in zip(contents, names, strict=True))
    dataset = replace(DATASETS["ehrsql"], checksums=lambda base_url: questions, database=database)
    monkeypatch.setitem(download.DATASETS, "ehrsql", dataset)
    return contents


def test_the_database_is_fetched_on_demand_into_the_layout_of_the_splits(server, small_ehrsql, tmp_path):
    fetch(server, tmp_path / "out", "ehrsql")
    assert files(tmp_path / "out") == {"train/annotated.json": b"[]\n"}
    fetch(server, tmp_path / "out", "ehrsql", "--with_database")
    assert files(tmp_path / "out") == {"train/annotated.json": b"[]\n", "mimic_iv.sqlite": b"SQLite"}
    assert [name for name, _ in server.requests] == ["annotated.json", "mimic_iv.sqlite"]


def test_a_file_with_another_name_in_git_is_one_line_and_is_not_kept(server, mirror, small_ehrsql, tmp_path):
    (mirror / "data/mimic_iv/mimic_iv.sqlite").write_bytes(b"SQLitE")
    with pytest.raises(InputError, match=r"mimic_iv\.sqlite has git's name .*, not .*changed upstream"):
        fetch(server, tmp_path / "out", "ehrsql", "--with_database")
    assert not list((tmp_path / "out").glob("mimic_iv*"))


def test_the_demo_has_no_database(server, tmp_path):
    with pytest.raises(InputError, match=r"mimic-iv-demo has no database; build one from it with data_prep\.build_ehr"):
        fetch(server, tmp_path / "out", "mimic-iv-demo", "--with_database")
    assert server.requests == []


def test_a_missing_file_is_one_line(server, mirror, tmp_path):
    (mirror / "hosp" / "patients.csv.gz").unlink()
    with pytest.raises(InputError, match="404 .*patients.csv.gz"):
        fetch(server, tmp_path / "out")


def test_a_checksum_list_that_lacks_a_file_is_refused(server, mirror, tmp_path):
    (mirror / "SHA256SUMS.txt").write_text("0 hosp/other.csv.gz\n")
    with pytest.raises(InputError, match="does not list .*hosp/patients.csv.gz"):
        fetch(server, tmp_path / "out")


def test_no_network_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    options = ["--out_dir", str(tmp_path / "out"), "--accept_license", "--base_url", "http://127.0.0.1:9"]
    with pytest.raises(InputError, match="no connection to http://127.0.0.1:9 .*check the network") as raised:
        main(["ehrsql", *options])
    assert "\n" not in str(raised.value)


def test_an_unwritable_folder_is_one_line(server, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot write to"):
        fetch(server, tmp_path / "out")


@pytest.mark.parametrize(
    ("terminal", "reply", "message"), [(False, "", "--accept_license"), (True, "n", "not accepted")]
)
def test_nothing_is_fetched_before_the_licence_is_accepted(server, tmp_path, monkeypatch, terminal, reply, message):
    monkeypatch.setattr("sys.stdin.isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: reply)
    with pytest.raises(InputError, match=message):
        main(["mimic-iv-demo", "--out_dir", str(tmp_path / "out"), "--base_url", server.url])
    assert server.requests == []


def test_embedded_checksums_are_those_of_the_real_questions(shared_data):
    local = DATASETS["ehrsql"].local
    present = {name: shared_data / "ehrsql2024" / local(name) for name in EHRSQL_CHECKSUMS}
    present = {name: path for name, path in present.items() if path.exists()}
    assert len(present) == 9
    assert {name: sha256_file(path) for name, path in present.items()} == {
        name: EHRSQL_CHECKSUMS[name] for name in present
    }
