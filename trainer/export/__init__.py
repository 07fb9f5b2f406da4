"""`python -m trainer.export`: exports a bundle to ONNX, torch-export or TorchScript, verified and described.

Imports `contract` and `ranks`.
"""
