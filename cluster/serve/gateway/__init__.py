"""gRPC of the Open Inference Protocol v2, in front of the endpoint's HTTP: each call becomes a request under /v2.

Tokens, limits, counts, logs and the choice of a replica are those of HTTP, since HTTP answers.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_grpc.md.
"""
