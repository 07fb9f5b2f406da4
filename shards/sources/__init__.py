"""Where pictures come from: folders, archives, lists, foreign tars; each becomes a SourceList."""
