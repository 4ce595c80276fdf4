"""Classifiers on a model server that speaks OpenAI's completions."""
