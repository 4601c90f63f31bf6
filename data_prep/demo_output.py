"""Where the demo generators write: a folder that holds nothing but their own earlier output."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.atomic import atomic_output
from data_prep.errors import InputError

MARKER = "SYNTHETIC.txt"


@contextmanager
def demo_output(out_dir: str | Path) -> Iterator[Path]:
    """Yield a new folder that becomes ``out_dir`` as a whole on success.

    A demo folder from an earlier run is replaced. Anything else is left alone with an ``InputError``, because
    ``out_dir`` may as well name a folder of real records.
    """
    final = Path(out_dir).absolute()
    if final.exists() and not (final / MARKER).is_file() and not (final.is_dir() and not any(final.iterdir())):
        raise InputError(f"{final} exists and is no demo folder; choose another --out_dir")
    with atomic_output(final) as partial:
        partial.mkdir()
        (partial / MARKER).write_text("Synthetic demo data. No real patient is described here.\n")
        yield partial
