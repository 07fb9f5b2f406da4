"""One recipe and a space of changes to it: trials on Ray Tune, a table, and the best bundle."""
