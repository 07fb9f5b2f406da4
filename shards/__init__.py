"""Images to audited WebDataset tar shards with an index, and back to a stream of encoded samples.

This package knows bytes and labels, not models; it imports nothing of the other packages.
"""

from shards.workers.openmp import limit_spinning

limit_spinning()  # before anything imports torch
