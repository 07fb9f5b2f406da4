"""Batches of training pictures: read in the epoch's order, decoded and cropped by threads, copied to the device."""
