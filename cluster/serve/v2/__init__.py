"""The Open Inference Protocol v2 over HTTP, as KServe and NVIDIA Triton speak it: further pages of the endpoint.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md, and Triton's
extension of it for binary tensors, docs/protocol/extension_binary_data.md in triton-inference-server/server.
"""
