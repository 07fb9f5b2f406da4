"""`python -m tune.report`: a page, tables and figures about a sweep."""
