"""The rankings page: HTML, scripts and charts from plain data; it knows no model."""
