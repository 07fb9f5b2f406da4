"""LitServe with batches, for `serve.py`: python serve_litserve.py BUNDLE PORT, in an environment that has litserve."""

import sys
from typing import Any

import torch
from fastapi import UploadFile

from trainer.contract.bundle import Bundle

try:
    import litserve as ls
except ImportError:  # pytest looks for doctests here, in the environment of the tests
    ls = None
_API: Any = ls.LitAPI if ls else object

BATCH, WAIT_S = 16, 0.005


class Api(_API):
    """The bundle, called with whole batches; pictures arrive as the multipart field `request`."""

    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        self.bundle = Bundle.load(sys.argv[1], device)

    def decode_request(self, request: UploadFile) -> torch.Tensor:
        return self.bundle.prepare(request.file.read())

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs)

    def predict(self, images: torch.Tensor) -> list[dict[str, Any]]:
        return [self.bundle.answer(*output).describe() for output in self.bundle.compute(images)]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=WAIT_S, api_path="/v1/predict")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, healthcheck_path="/healthz", timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
