"""Fine-tune a language model and keep what it knew."""

__version__ = "0.1.0"
