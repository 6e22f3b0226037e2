"""What Django looks for here: see ``commands``."""
