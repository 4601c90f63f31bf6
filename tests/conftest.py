import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

REPO = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# The same examples in each run, however slow the machine is. HYPOTHESIS_PROFILE=default looks for others.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "deterministic"))

# The longest first, so that none of them runs alone at the end while the other worker waits. One worker runs both: two
# runs of Ray and torch at a time take longer than one after the other.
LONGEST = ("test_ehrsql_recipe", "test_ecg_recipe")
# Files that start verl, vLLM, Ray or a browser, run scripts, compose many configs, build many databases, or grade and
# execute real data: "scripts/test.sh --quick" leaves them out.
SLOW = {
    *LONGEST,
    "test_build_ehr_db",
    "test_chat",
    "test_chat_ui",
    "test_compare_page",
    "test_configs",
    "test_data_parallel",
    "test_ecg_adversary",
    "test_ecg_grader",
    "test_ecg_teacher",
    "test_ehr_audit",
    "test_ehr_equality",
    "test_ehr_files",
    "test_ehrsql_parquet",
    "test_evaluate_ecg",
    "test_monitored_trainer",
    "test_predictions",
    "test_process",
    "test_recipe_settings",
    "test_repository",
    "test_robust",
    "test_rollout_groups",
    "test_run",
    "test_sql_attacks",
    "test_sql_parity",
    "test_summary_page",
    "test_train_cli",
    "test_verl_cpu",
}


class RecipesOnOneWorker(LoadFileScheduling):
    """pytest-xdist's distribution by file, with both recipes as one file."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "recipes" if Path(file).stem in LONGEST else file


def pytest_xdist_make_scheduler(config, log) -> RecipesOnOneWorker:
    return RecipesOnOneWorker(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test, or a program that it calls, does to the environment ends with the test."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real EHRSQL-2024 and MIMIC-IV demo data, where a developer has them: ``$SHARED_DATA`` or ``../shared/data``."""
    path = Path(os.environ.get("SHARED_DATA", REPO.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no shared data at {path} (set SHARED_DATA)")
    return path


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For many short embeddings: two test files at a time with two threads each would wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def browser():
    """A real browser. Debian: apt-get install chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def running_chat_server():
    from chat_server import ChatServer

    server = ChatServer()
    yield server
    server.stop()


@pytest.fixture
def server(running_chat_server, monkeypatch):
    """A ``chat_server.ChatServer`` that nobody has asked yet, and no key or proxy in the environment."""
    running_chat_server.reset()
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return running_chat_server


@pytest.fixture
def generate(server, tmp_path):
    """Asks the server texts with some options: ``generate("text", ..., further=2)``."""
    from recipes.evaluation.generation import GenerationOptions
    from recipes.evaluation.server import ServerGenerator
    from recipes.evaluation.server_connection import Server

    def ask(*texts: str, server_options: dict | None = None, **options) -> list:
        asked = Server(server.url, **{"timeout_s": 10.0} | (server_options or {}))
        ask.generator = ServerGenerator(GenerationOptions("org/model", **options), asked, tmp_path / "answers")
        return ask.generator([[{"role": "user", "content": text}] for text in texts])

    return ask
