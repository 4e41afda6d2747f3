"""What data sets consist of, and where their files lie."""
