"""Evaluation: a retrieval set is walked in blocks, and ranked; anew with its hubs corrected."""
