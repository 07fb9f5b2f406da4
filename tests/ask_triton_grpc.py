"""Ask an endpoint's gRPC with NVIDIA's tritonclient; run by tests/test_cluster_serve_grpc.py in its own environment.

Usage: python ask_triton_grpc.py HOST:PORT PREPARED.npy PICTURE...

PREPARED.npy has the pictures as the model takes them, uint8[N, C, S, S]. Prints one JSON object.
"""

import json
import sys
from pathlib import Path

import numpy as np

try:
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException
except ImportError:  # pytest looks for doctests here, in the environment of the tests
    triton = InferenceServerException = None

MODEL = "shardline"


def ask(client, name, values, datatype, outputs=(), **more):
    """Return the output tensors as lists, their types, and the request's id."""
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    wanted = [triton.InferRequestedOutput(output) for output in outputs]
    result = client.infer(MODEL, [tensor], outputs=wanted or None, **more)
    page = result.get_response(as_json=True)
    found = {each["name"]: result.as_numpy(each["name"]) for each in page["outputs"]}
    lists = {
        name: np.vectorize(bytes.decode)(it).tolist() if it.dtype == object else it.tolist()
        for name, it in found.items()
    }
    return {"outputs": lists, "types": {name: str(it.dtype) for name, it in found.items()}, "id": page.get("id")}


def main(address, prepared, *paths):
    client = triton.InferenceServerClient(address)
    files = np.array([Path(path).read_bytes() for path in paths], dtype=np.object_)
    images = np.load(prepared)
    said = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "version_ready": client.is_model_ready(MODEL, "1"),
        "other_ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata(MODEL, "1", as_json=True),
        "files": ask(client, "picture", files, "BYTES", request_id="a 1"),
        "images": ask(client, "input", images, "UINT8", ["logits", "label"], model_version="1"),
        "floats": ask(client, "input", images.astype(np.float32), "FP32", ["probabilities"]),
    }
    try:
        ask(client, "picture", np.array([b"no picture"], dtype=np.object_), "BYTES")
    except InferenceServerException as err:
        said["error"] = {"message": err.message(), "status": err.status()}
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
