"""Policies, models and thresholds measured offline against labelled records."""
