"""From a SourceList to a published dataset: audit, split, cut into shards, write them, publish."""
