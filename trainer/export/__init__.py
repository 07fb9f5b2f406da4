"""`python -m trainer.export`: a bundle as ONNX, torch-export or TorchScript, compared and described.

Imports `contract` and `ranks`.
"""
