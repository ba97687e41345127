"""The command line: what operators do on the host itself, through the same use cases as every other front."""
