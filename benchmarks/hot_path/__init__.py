"""What one record costs in processor time: the daemon beside other consumers of the same stream, in one run."""
