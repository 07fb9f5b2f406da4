"""The run store: a run folder mirrored to an object store."""
