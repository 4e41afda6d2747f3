"""Stored embeddings of teachers, for students that learn from them."""
