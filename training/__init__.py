"""Train the shipped compact weights. Importable only from a checkout."""
