"""Run in a fresh interpreter: serve a picture with a bundle, without a cluster, and print what was loaded as JSON.

`python serving_process.py BUNDLE`: the application as Ray Serve's build process imports it, then all that a
replica does, then what Ray's head and the commands around an endpoint load.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import io
import json
import re
import sys
from pathlib import Path

COMMANDS = ("serve", "client", "promote", "rollback", "status")


def main(bundle: str) -> None:
    answers = asyncio.run(answer(bundle))
    for name in COMMANDS:
        importlib.import_module(f"cluster.{name}.__main__").build_parser()
    importlib.import_module("cluster.client.clients")
    modules = sorted(sys.modules)
    print(json.dumps({"answers": answers, "modules": modules, "distributions": list_distributions()}))


async def answer(bundle: str) -> int:
    """Return the number of answers of a replica to one picture."""
    from cluster.serve import app

    app.build({"bundle": bundle})  # before a replica's imports, as in Ray Serve's process that builds
    from PIL import Image

    from cluster.serve.answer import Wishes
    from cluster.serve.api import build_api
    from cluster.serve.options import read_options
    from cluster.serve.predictor import Predictor
    from cluster.serve.rollout import Rollout

    options = read_options({"bundle": bundle})
    predictor, picture = Predictor(options), io.BytesIO()
    build_api(predictor, options)
    await predictor.follow(Rollout(bundle=bundle))
    Image.new("RGB", (60, 50), (200, 10, 10)).save(picture, "JPEG")
    return len(await predictor.predict_all([picture.getvalue()], Wishes(explain=True)))


def list_distributions() -> list[str]:
    """Return the distributions that loaded modules come from; a copy inside another distribution is that one's."""
    owners, found = importlib.metadata.packages_distributions(), set()
    for top in {name.partition(".")[0] for name in sys.modules}:
        file = Path(getattr(sys.modules.get(top), "__file__", None) or ".")
        if "site-packages" in (file.parent.name, file.parent.parent.name):
            found |= {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners.get(top, [])}
    return sorted(found)


if __name__ == "__main__":
    main(sys.argv[1])
