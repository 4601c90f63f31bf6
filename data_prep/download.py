"""Fetch the public data that the recipes use: the EHRSQL-2024 questions and the MIMIC-IV demo.

A file that is already there with the right checksum is kept; an interrupted one continues where it stopped.
Everything works without this data on the demo, which is made locally.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from data_prep.common.checksum import git_blob_id, sha256_file
from data_prep.common.errors import InputError, run_main

TIMEOUT_S = (10, 60)  # to connect, and between two pieces
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Dataset:
    """A public data set.

    ``checksums``: from the base URL to ``{path below it: checksum}``, a SHA-256 or git's name for the content.
    ``local``: from such a path to the one below the output folder. ``database``: the path and the checksum of what is
    fetched on demand only.
    """

    base_url: str
    licence: str
    licence_url: str
    checksums: Callable[[str], dict[str, str]]
    local: Callable[[str], str]
    database: dict[str, str] = field(default_factory=dict)


# Version 1.1.1 of the shared task: the newest commit of github.com/glee4810/ehrsql-2024 as of November 2026.
EHRSQL_COMMIT = "46597893d9ffc6b9e67785b9c6dcbb06f1b62568"
# SHA-256 of the files; of the two largest, the names that the commit's own tree gives their contents (git ls-tree).
EHRSQL_CHECKSUMS = {
    "LICENSE": "95df2e9564862e51d69683a899b6dcc8218d577057bdf67322880769ff85f29e",
    "data/mimic_iv/tables.json": "8f6db5cd6a19ab1b343a9e46d073057877b841abae4f53a1e0c9b9d1021c826d",
    "data/mimic_iv/train/annotated.json": "77af0d72c5ef8750f5c93d0c5ae66f2d22c6ae4c",
    "data/mimic_iv/train/answer.json": "87f5f2d1485dbf7e2f4a0ffbf1f8179516f252def642d2db9c54ba2ea0df580a",
    "data/mimic_iv/train/data.json": "5831de7229fbbd3af0f22685a6c7338d2656b3a975b060ad3b5a22d0a7cc5f19",
    "data/mimic_iv/train/label.json": "bbfc13a6291d8677eafe4c6b25f186708f5150abf8e19788fa567ec997855ca3",
    "data/mimic_iv/valid/annotated.json": "1696733652f25718b95d81cba94f5a59149e1246470a92e9e71f103262faafb0",
    "data/mimic_iv/valid/answer.json": "d8339672bb752bde0bbda4ed4359db0fb64fb8d9e81cb7a782866b7cca17484b",
    "data/mimic_iv/valid/data.json": "106fe2d679dc66daa3b2e0797fef7badd1f9264db4e64b40677ebceda736acdc",
    "data/mimic_iv/valid/label.json": "9addafb996119b0e4a1b05928a6d4d42f33c073fa6d72edbdf8273faa40a6db0",
    "data/mimic_iv/test/annotated.json": "dd8149e98677aa6a4fccab995399585d19edbc8ee839ae7c99bbd9c9788a90c0",
    "data/mimic_iv/test/answer.json": "98c21b3a484fa7b4ed2c79edefbafac78b5ed7d940d26e14d0e5fcba759c1f56",
    "data/mimic_iv/test/data.json": "b694d389aaf943c2ed7d64bf62d8161b9919a3191501831e2ca767237eb44960",
    "data/mimic_iv/test/label.json": "307d8666440e45d35aa7852e19d32160844025592352f47a2aa0325178005450",
}
EHRSQL_DATABASE = {"data/mimic_iv/mimic_iv.sqlite": "b1b205e0de42ad0551fa84cf402f71a994d39a48"}
MIMIC_FILES = (
    "LICENSE.txt",
    "hosp/admissions.csv.gz",
    "hosp/d_icd_diagnoses.csv.gz",
    "hosp/d_icd_procedures.csv.gz",
    "hosp/d_labitems.csv.gz",
    "hosp/diagnoses_icd.csv.gz",
    "hosp/labevents.csv.gz",
    "hosp/microbiologyevents.csv.gz",
    "hosp/patients.csv.gz",
    "hosp/prescriptions.csv.gz",
    "hosp/procedures_icd.csv.gz",
    "hosp/transfers.csv.gz",
    "icu/chartevents.csv.gz",
    "icu/d_items.csv.gz",
    "icu/icustays.csv.gz",
    "icu/inputevents.csv.gz",
    "icu/outputevents.csv.gz",
)


def mimic_checksums(base_url: str) -> dict[str, str]:
    """The checksums of ``MIMIC_FILES`` from the release's own ``SHA256SUMS.txt``."""
    url = f"{base_url}/SHA256SUMS.txt"
    lines = [line.split(maxsplit=1) for line in _get(url).text.splitlines() if line.strip()]
    sums = {line[1].strip(): line[0] for line in lines if len(line) == 2}
    if missing := [name for name in MIMIC_FILES if name not in sums]:
        raise InputError(f"{url} does not list {', '.join(missing)}; is this release 2.2 of the demo?")
    return {name: sums[name] for name in MIMIC_FILES}


DATASETS = {
    "ehrsql": Dataset(
        base_url=f"https://raw.githubusercontent.com/glee4810/ehrsql-2024/{EHRSQL_COMMIT}",
        licence="Creative Commons Attribution 4.0 International",
        licence_url="https://creativecommons.org/licenses/by/4.0/",
        checksums=lambda base_url: EHRSQL_CHECKSUMS,
        local=lambda name: name.removeprefix("data/mimic_iv/"),
        database=EHRSQL_DATABASE,
    ),
    "mimic-iv-demo": Dataset(
        base_url="https://physionet.org/files/mimic-iv-demo/2.2",
        licence="Open Data Commons Open Database License v1.0",
        licence_url="https://physionet.org/content/mimic-iv-demo/view-license/2.2/",
        checksums=mimic_checksums,
        local=lambda name: name,
    ),
}


def download(dataset: Dataset, out_dir: Path, base_url: str | None = None, with_database: bool = False) -> None:
    """Bring every file of ``dataset`` to ``out_dir``, the database only on demand.

    Raises:
        InputError: no connection, a file is not served, a checksum differs, or ``out_dir`` cannot be written.
    """
    base_url = (base_url or dataset.base_url).rstrip("/")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        with Progress(*columns) as progress:
            files = dataset.checksums(base_url) | (dataset.database if with_database else {})
            for name, checksum in files.items():
                _fetch(f"{base_url}/{name}", out_dir / dataset.local(name), checksum, progress)
    except requests.HTTPError as error:
        raise InputError(f"{error}; check --base_url or try again later") from error
    except requests.RequestException as error:
        reason = type(error).__name__
        raise InputError(
            f"no connection to {base_url} ({reason}); check the network and run the command again to resume"
        ) from error
    except OSError as error:
        raise InputError(f"cannot write to {out_dir}: {error}; free space or choose another folder") from error


def _fetch(url: str, target: Path, checksum: str, progress: Progress) -> None:
    name, check = ("SHA-256", sha256_file) if len(checksum) == 64 else ("git's name", git_blob_id)
    task = progress.add_task(target.name, total=None)
    if target.exists() and check(target) == checksum:
        size = target.stat().st_size
        progress.update(task, completed=size, total=size)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    if not (partial.exists() and check(partial) == checksum):
        _continue(url, partial, lambda done, total: progress.update(task, completed=done, total=total))
    if (found := check(partial)) != checksum:
        partial.unlink()
        raise InputError(
            f"{url} has {name} {found}, not {checksum}: a damaged transfer (run the command again) "
            "or a file that changed upstream"
        )
    partial.replace(target)


def _continue(url: str, partial: Path, report: Callable[[int, int | None], None]) -> None:
    """Append to ``partial`` what it lacks; a server without byte ranges sends the whole file anew."""
    done = partial.stat().st_size if partial.exists() else 0
    with _get(url, start=done) as response:
        if response.status_code != requests.codes.partial_content:
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with partial.open("ab" if done else "wb") as file:
            for piece in response.iter_content(CHUNK_BYTES):
                file.write(piece)
                done += len(piece)
                report(done, total)


def _get(url: str, start: int = 0) -> requests.Response:
    # Without "identity" a server may compress the body, and byte offsets would count compressed bytes.
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S)
    if start and response.status_code == requests.codes.requested_range_not_satisfiable:
        return _get(url)  # what is there is not the beginning of this file
    response.raise_for_status()
    return response


def _confirm_licence(dataset: Dataset, accepted: bool) -> None:
    print(f"Licence: {dataset.licence} ({dataset.licence_url})")
    if accepted:
        return
    if not sys.stdin.isatty():
        raise InputError("accept the licence with --accept_license")
    if input("Do you accept it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError("not downloaded: the licence was not accepted")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.download",
        description="Download public data, with checksums; run it again to resume.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the files")
    parser.add_argument("--accept_license", action="store_true", help="accept the licence without a question")
    parser.add_argument(
        "--with_database",
        action="store_true",
        help="ehrsql: mimic_iv.sqlite, too, which the questions are about",
    )
    parser.add_argument("--base_url", help="fetch from this mirror instead of the publisher")
    arguments = parser.parse_args(argv)
    dataset = DATASETS[arguments.dataset]
    if arguments.with_database and not dataset.database:
        raise InputError(f"{arguments.dataset} has no database; build one from it with data_prep.build_ehr_db")
    _confirm_licence(dataset, arguments.accept_license)
    download(dataset, arguments.out_dir, arguments.base_url, arguments.with_database)
    print(f"{arguments.dataset} is in {arguments.out_dir}")


if __name__ == "__main__":
    run_main(main)
