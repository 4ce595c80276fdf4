"""The embedded models: Gemma 3 270M from a PyPI package, and this project's adapter for it."""
