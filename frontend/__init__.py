"""einkorn."""
