"""How the shipped compact weights were made. Importable only from a checkout."""
