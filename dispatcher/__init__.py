"""Provider-side retry dispatcher: game spins in, operator callbacks out."""

__version__ = "0.1.0"
