"""Side-by-side measurements against real peers; each prints ratios."""
