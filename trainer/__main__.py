"""`python -m trainer`: list the commands."""

from __future__ import annotations

import sys
from functools import partial

from shards.cli.ending import run_command
from shards.cli.front import run_package

main = partial(run_package, "trainer")

if __name__ == "__main__":
    sys.exit(run_command(main))
