"""What `misc.check_data_set` looks for, and how it reports it."""
