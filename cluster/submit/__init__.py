"""The command that runs another command as a job of a Ray cluster."""
