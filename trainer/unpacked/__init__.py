"""Pictures as they lie in folders, archives, lists and stores: listed as a stream and read ahead."""
