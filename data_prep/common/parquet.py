"""A set of parquet files and its manifest, written all or none."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.common.atomic import atomic_output
from data_prep.common.checksum import sha256_file


def write_parquet(
    out_dir: Path, names: Sequence[str], rows: dict[str, list[dict[str, Any]]], manifest: dict[str, Any]
) -> None:
    """Write ``<name>.parquet`` for each name that has ``rows``, and ``manifest.json`` with counts and hashes added.

    The manifest is renamed into place last: where it stands, the other files are complete. Files of an earlier run that
    have no ``rows`` now are removed.
    """
    manifest_path = out_dir / "manifest.json"
    with ExitStack() as stack:
        # The stack leaves in reverse order: nothing is renamed before all is written, the manifest last.
        manifest_partial = stack.enter_context(atomic_output(manifest_path))
        manifest["outputs"] = {}
        for name, name_rows in rows.items():
            partial = stack.enter_context(atomic_output(out_dir / f"{name}.parquet"))
            pq.write_table(pa.Table.from_pylist(name_rows), partial)
            manifest["outputs"][f"{name}.parquet"] = {"rows": len(name_rows), "sha256": sha256_file(partial)}
        manifest_partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        manifest_path.unlink(missing_ok=True)
        for name in names:
            if name not in rows:
                (out_dir / f"{name}.parquet").unlink(missing_ok=True)
