"""The classifier: content in, verdict out."""
