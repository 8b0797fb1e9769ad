"""The version, where modules can import it without the package's public names."""

__version__ = "0.1.0"
