"""Where the demo generators write: a folder of their own that says what it holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.common.atomic import atomic_output

MARKERS = "SYNTHETIC_*.txt"
NO_PATIENTS = "Synthetic demo data. No real patient is described here."


@contextmanager
def demo_output(out_dir: str | Path, kind: str, content: str = NO_PATIENTS) -> Iterator[Path]:
    """Yield a new folder that becomes ``out_dir`` as a whole on success.

    ``SYNTHETIC_<kind>.txt`` marks the folder, and says what the ``content`` is. An earlier output of the same kind is
    replaced. All else is left alone with an ``InputError``, because ``out_dir`` may as well name a folder of real
    records.
    """
    marker = MARKERS.replace("*", kind)
    with atomic_output(out_dir, marker) as partial:
        partial.mkdir()
        (partial / marker).write_text(f"{content}\n")
        yield partial
