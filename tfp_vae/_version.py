"""The version, by itself so that a build can read it without importing TensorFlow."""

__version__ = "0.1.0"
