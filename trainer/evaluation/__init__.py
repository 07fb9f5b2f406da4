"""What a model answers on a part of a dataset: a row a sample, metrics, figures, the report."""
