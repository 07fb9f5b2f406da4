"""The program beside an export, one section per module; `trainer.export.script` joins them.

They import Pillow, numpy and onnxruntime alone, and each other.
"""
