"""The experts, one table of all (`table.py`)."""
