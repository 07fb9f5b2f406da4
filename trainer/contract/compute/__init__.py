"""What computes the logits: PyTorch, ONNX Runtime or OpenVINO, chosen by measurement, held to parity.

Serving imports it.
"""
