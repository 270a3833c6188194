"""Lydite judges language models. The public names, imported when first used so that `import lydite` stays light."""

__version__ = "0.1.0"
