"""Which training images does a model give back? Plan, screen, extract, compare, judge.

For other packages: audit, settings."""
