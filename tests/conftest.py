import os
import shutil
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that none of them runs alone at the end while the other worker waits."""
    longest = ("test_ehrsql_recipe.py", "test_ecg_recipe.py")
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real EHRSQL-2024 and MIMIC-IV demo data, where a developer has them: ``$SHARED_DATA`` or ``../shared/data``."""
    path = Path(os.environ.get("SHARED_DATA", REPO.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no shared data at {path} (set SHARED_DATA)")
    return path


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
