"""The engine beside its peers; see `benchmarks.engine.__main__`."""
