"""edgeprivacy: compress models for phones without betraying their training data, and attack what ships."""

__version__ = "0.1.0"
