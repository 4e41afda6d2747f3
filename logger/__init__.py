"""Log file, TensorBoard, results and the rankings page. Knows numbers and names."""
