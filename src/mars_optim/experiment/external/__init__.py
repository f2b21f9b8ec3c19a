"""Jobs that train outside this package: a command that is run, files that it left. No torch."""
