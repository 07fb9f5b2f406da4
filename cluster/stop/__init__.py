"""The command that stops a job so that it can be resumed."""
