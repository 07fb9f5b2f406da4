"""Which pictures there are: folders, archives, lists, foreign tars; all become one SourceList."""
