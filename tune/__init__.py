"""Sweeps: a recipe and a space of changes to it, trials on Ray Tune, a table, and the best bundle."""

from shards.cli.hidden import refuse_hidden  # imports shards, which sets how threads wait, before torch is imported

refuse_hidden("trainer")
