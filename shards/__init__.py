"""Pictures to audited WebDataset tar shards with an index, and back to a stream of encoded samples.

This package handles bytes and labels, not models; it imports none of the other packages. Its public names are in
`__init__.pyi` and are imported on first use.
"""

import lazy_loader

from shards.workers.openmp import limit_spinning

limit_spinning()  # before anything imports torch

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
