"""Stop thinking when you know."""
