"""Ask an endpoint with NVIDIA's tritonclient; run by tests/test_cluster_serve_v2.py in an environment of its own.

Usage: python ask_triton.py HOST:PORT PREPARED.npy PICTURE...

PREPARED.npy has the pictures as the model takes them, uint8[N, C, S, S]. Prints one JSON object.
"""

import json
import sys
from pathlib import Path

import numpy as np

try:
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException
except ImportError:  # pytest looks for doctests here, in the environment of the tests
    triton = InferenceServerException = None

MODEL = "shardline"


def read(text):
    return text.decode() if isinstance(text, bytes) else text


def ask(client, name, values, datatype, outputs=None, **more):
    """Return the output tensors as lists, and the request's id."""
    tensor = triton.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=True)
    wanted = [triton.InferRequestedOutput(output, binary_data=binary) for output, binary in (outputs or {}).items()]
    result = client.infer(MODEL, [tensor], outputs=wanted or None, **more)
    page = result.get_response()
    found = {each["name"]: result.as_numpy(each["name"]) for each in page["outputs"]}
    # The client gives bytes for binary texts, and text for those in JSON.
    lists = {name: np.vectorize(read)(it).tolist() if it.dtype == object else it.tolist() for name, it in found.items()}
    types = {name: str(it.dtype) for name, it in found.items()}
    return {"outputs": lists, "types": types, "id": page.get("id")}


def main(address, prepared, *paths):
    client = triton.InferenceServerClient(address, network_timeout=120, connection_timeout=120)
    files = np.array([Path(path).read_bytes() for path in paths], dtype=np.object_)
    images = np.load(prepared)
    said = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "version_ready": client.is_model_ready(MODEL, "1"),
        "other_ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(MODEL, "1"),
        "files": ask(client, "picture", files, "BYTES", request_id="a 1"),
        "images": ask(client, "input", images, "UINT8", {"logits": True, "label": False}, model_version="1"),
        "floats": ask(client, "input", images.astype(np.float32), "FP32", {"probabilities": False}),
    }
    try:
        ask(client, "picture", np.array([b"no picture"], dtype=np.object_), "BYTES")
    except InferenceServerException as err:
        said["error"] = {"message": err.message(), "status": err.status()}
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
