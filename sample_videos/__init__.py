"""Make the sample clips. Importable only from a checkout."""
