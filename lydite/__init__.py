"""Lydite judges language models. Nothing is imported here, so that `import lydite` stays light."""

__version__ = "0.1.0"
