"""The program beside an export, a section in each module; `trainer.export.script` joins them.

They import Pillow, numpy and onnxruntime alone, and each other.
"""
