"""Labelled data of other people's formats, read as records."""
