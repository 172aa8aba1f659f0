"""`ek.Model`: training, evaluation and prediction around one compiled step."""
