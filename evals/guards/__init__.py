"""Guard models of others, under test in this harness."""
