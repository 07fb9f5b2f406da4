"""Unpacked pictures in folders, archives, lists and object stores: listed as a stream and read ahead."""
