"""Images to audited WebDataset tar shards with an index, and back to a stream of encoded samples.

This package knows bytes and labels, not models; it imports nothing of the other packages. What it offers to Python
stands in `__init__.pyi` and is imported when it is used.
"""

import lazy_loader

from shards.workers.openmp import limit_spinning

limit_spinning()  # before anything imports torch

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
