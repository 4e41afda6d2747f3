"""Files of features and captions in, batches and retrieval sets out. Knows no model."""
