"""Predict with an exported classifier as its bundle's endpoint does, with Pillow, numpy and onnxruntime alone.

    python FILE.py PICTURE...        one line of JSON per picture

FILE is the exported file; FILE.json beside it has all numbers, and the steps in words. This program is the same for
every export, and each export writes it again. Copied under another name it can be imported as a module:

    model = Exported("FILE.json")
    model.answer(open("picture.jpg", "rb").read())

`answer(data)` is `decide(*compute(prepare(data)))`. A picture that the endpoint rejects is rejected with an error
message; so are DICOM files and a few rare layouts that Pillow alone does not read exactly as the endpoint does.
FILE.pt2 and FILE.pt need torch, which is not needed otherwise.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.export.standalone.decision import Detector, decide
from trainer.export.standalone.decode import Bytes, PictureError, decode
from trainer.export.standalone.geometry import fit, shrink


class Exported:
    """An exported classifier, opened by its metadata."""

    def __init__(self, page: str | Path) -> None:
        path = Path(page)
        self.page: dict[str, Any] = json.loads(path.read_bytes())
        self.decision: dict[str, Any] = self.page["decision"]
        self.compute = _open(_check(path.parent / self.page["file"], self.page["sha256"]), self.page["kind"])
        ood = self.decision.get("ood")
        self._detector = Detector(_check(path.parent / self.page["detector"], ood["sha256"])) if ood else None

    def prepare(self, data: bytes) -> Bytes:
        """Return uint8[1, C, S, S], the input of the exported file, from a picture's bytes; raises PictureError."""
        spec = self.page["preprocess"]
        return fit(shrink(decode(data, spec["decode"]), spec["max_side"]), spec)[None]

    def decide(self, logits: npt.NDArray[Any], features: npt.NDArray[Any]) -> dict[str, Any]:
        """Return the answer from the two outputs float32[K] and float32[F] for one picture."""
        if not np.isfinite(logits).all():
            raise PictureError("the model's logits for this picture are not finite; its weights overflow")
        score = self._detector.score(features) if self._detector else None
        return decide(logits, self.page["classes"], self.decision, score) | {"bundle": self.page["bundle"]}

    def answer(self, data: bytes) -> dict[str, Any]:
        """Return the endpoint's answer for a picture's bytes; raises PictureError."""
        logits, features = self.compute(self.prepare(data))
        return self.decide(logits[0], features[0])


def _check(path: Path, sha256: str) -> Path:
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{path} is not the file that the metadata names (its sha256 differs); export again")
    return path


def _open(path: Path, kind: str) -> Callable[[Bytes], list[npt.NDArray[Any]]]:
    """Return a function that computes logits float32[N, K] and features float32[N, F] from uint8[N, C, S, S]."""
    if kind == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads sleep between pictures
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda images: session.run(["logits", "features"], {"images": images})
    import torch

    with open(path, "rb") as file:
        model: Any = torch.export.load(file).module() if kind == "torch-export" else torch.jit.load(file)
    return lambda images: [output.detach().numpy() for output in model(torch.from_numpy(images))]


def main(names: list[str]) -> int:
    """Print an answer for each picture; return 2 if the export cannot be used, 3 if a picture is rejected."""
    if not names or names[0].startswith("-"):
        print(__doc__)
        return 2
    try:
        model = Exported(Path(__file__).with_suffix(".json"))
    except ImportError as err:
        print(f"error: {err.name} is not installed here: pip install {err.name}", file=sys.stderr)
        return 2
    except (OSError, ValueError, KeyError) as err:
        print(f"error: the export beside this program cannot be opened ({err})", file=sys.stderr)
        return 2
    code = 0
    for name in names:
        try:
            answer = model.answer(Path(name).read_bytes())
        except (OSError, PictureError) as err:
            answer, code = {"error": str(err)}, 3
        print(json.dumps({"path": name, **answer}, ensure_ascii=False))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
