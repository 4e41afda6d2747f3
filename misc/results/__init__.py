"""Tables of tested runs: finding the runs, their numbers, their rows, the text."""
