"""Log file, TensorBoard and summaries over seeds. Knows numbers and names."""
