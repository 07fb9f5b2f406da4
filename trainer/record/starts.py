"""How often a run was started again without having ended: starts.json, for metrics."""

from __future__ import annotations

import json
import logging

from shards.files.atomic import write_text
from trainer.record.run_folder import RunFolder

STARTS = "starts.json"

logger = logging.getLogger(__name__)


def begin_start(folder: RunFolder) -> int:
    """Count a start, and return how many followed one that had not ended by itself or by Ctrl-C; called by rank 0."""
    found = _read(folder)
    restarts = found["restarts"] + found["open"]
    _write(folder, restarts, is_open=True)
    return restarts


def end_start(folder: RunFolder) -> None:
    """Note that the run has ended as it should; called by rank 0."""
    _write(folder, _read(folder)["restarts"], is_open=False)


def _read(folder: RunFolder) -> dict[str, int]:
    path, found = folder.path / STARTS, {"restarts": 0, "open": 0}
    try:
        data = folder.store.read(STARTS) if folder.store else path.read_bytes() if path.is_file() else None
        return found if data is None else found | json.loads(data)
    except (OSError, ValueError) as err:
        logger.debug("restarts are counted anew: %s", err)
        return found


def _write(folder: RunFolder, restarts: int, is_open: bool) -> None:
    text = json.dumps({"restarts": restarts, "open": int(is_open)})
    try:
        if folder.store:
            folder.store.write(STARTS, text.encode())
        else:
            write_text(folder.path / STARTS, text)
    except OSError as err:  # the run itself names what is wrong with its disk or store
        logger.debug("this start is not counted: %s", err)
