"""Ask an endpoint with one of NVIDIA's tritonclients, in an environment of its own; tests/endpoints.py has the command.

Usage: python ask_triton.py http|grpc HOST:PORT PREPARED.npy PICTURE...

PREPARED.npy has the pictures as the model takes them, uint8[N, C, S, S]. Prints one JSON object.
"""

import json
import sys
from pathlib import Path

import numpy as np

try:
    import tritonclient.grpc
    import tritonclient.http
    from tritonclient.utils import InferenceServerException
except ImportError:  # pytest looks for doctests here, in the environment of the tests
    tritonclient = InferenceServerException = None

MODEL = "shardline"


class Http:
    """tritonclient.http: each tensor may be binary or JSON."""

    def __init__(self, address):
        self.kind = tritonclient.http
        self.client = self.kind.InferenceServerClient(address, network_timeout=120, connection_timeout=120)
        self.page, self.binary = {}, {"binary_data": True}

    def want(self, outputs):
        return [self.kind.InferRequestedOutput(name, binary_data=binary) for name, binary in outputs.items()]


class Grpc:
    """tritonclient.grpc: its messages can be read as JSON."""

    def __init__(self, address):
        self.kind = tritonclient.grpc
        self.client = self.kind.InferenceServerClient(address)
        self.page, self.binary = {"as_json": True}, {}

    def want(self, outputs):
        return [self.kind.InferRequestedOutput(name) for name in outputs]


def read(text):
    return text.decode() if isinstance(text, bytes) else text


def ask(way, name, values, datatype, outputs=None, **more):
    """Return the output tensors as lists, their types, and the request's id."""
    tensor = way.kind.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, **way.binary)
    result = way.client.infer(MODEL, [tensor], outputs=way.want(outputs or {}) or None, **more)
    page = result.get_response(**way.page)
    found = {each["name"]: result.as_numpy(each["name"]) for each in page["outputs"]}
    # The clients give bytes for binary texts, and text for those in JSON.
    lists = {name: np.vectorize(read)(it).tolist() if it.dtype == object else it.tolist() for name, it in found.items()}
    types = {name: str(it.dtype) for name, it in found.items()}
    return {"outputs": lists, "types": types, "id": page.get("id")}


def main(kind, address, prepared, *paths):
    way = {"http": Http, "grpc": Grpc}[kind](address)
    client = way.client
    files = np.array([Path(path).read_bytes() for path in paths], dtype=np.object_)
    images = np.load(prepared)
    said = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "version_ready": client.is_model_ready(MODEL, "1"),
        "other_ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(**way.page),
        "model": client.get_model_metadata(MODEL, "1", **way.page),
        "files": ask(way, "picture", files, "BYTES", request_id="a 1"),
        "images": ask(way, "input", images, "UINT8", {"logits": True, "label": False}, model_version="1"),
        "floats": ask(way, "input", images.astype(np.float32), "FP32", {"probabilities": False}),
    }
    try:
        ask(way, "picture", np.array([b"no picture"], dtype=np.object_), "BYTES")
    except InferenceServerException as err:
        said["error"] = {"message": err.message(), "status": err.status()}
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
