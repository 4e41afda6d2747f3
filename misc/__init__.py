"""Command-line tools built from the other rooms."""
