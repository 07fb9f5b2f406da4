"""The files of a run: snapshots, the ledger of samples, metrics and their copy in W&B."""
