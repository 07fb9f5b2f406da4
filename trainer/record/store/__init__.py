"""Where a run lives: a folder of this machine, or one mirrored to an object store."""
