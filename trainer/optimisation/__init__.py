"""Optimisers and learning-rate schedules, and the settings that they take."""
