"""What the two pixel tasks share."""
