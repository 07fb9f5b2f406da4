"""The report of a run: one offline HTML page, and a model card."""
