"""Verdicts over HTTP: the moderation API, the gate before a generator, settings, metrics."""
