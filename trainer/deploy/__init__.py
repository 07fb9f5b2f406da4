"""Out of the house: exports of a bundle, and what each way to compute it costs."""
