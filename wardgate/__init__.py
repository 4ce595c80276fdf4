"""The command line: every package behind one name."""
