"""The gate: what of a request and of its answer is content, and what of the answer may leave."""
