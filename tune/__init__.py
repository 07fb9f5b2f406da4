"""One recipe and a space of changes to it: trials on Ray Tune, a table, and the best bundle."""

import shards  # noqa: F401  it sets how threads wait, before torch is imported
