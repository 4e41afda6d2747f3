"""Config, seeds and the rankings page. Knows no model and no file of features."""
