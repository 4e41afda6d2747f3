"""Builds an index of videos that `misc.search` searches, and changes it."""
