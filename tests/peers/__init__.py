"""The remote engine against model servers of other projects; see `make test-peers`."""
