"""The command line. Help must answer at once, so everything heavy is imported inside the commands."""
