"""The program beside an export, a section in each module; `trainer.deploy.script` joins them.

They import Pillow, numpy and onnxruntime alone, and each other.
"""
