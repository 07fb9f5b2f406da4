"""What a run leaves on disk: snapshots, the ledger of samples, its numbers, and their copy in W&B."""
