"""Data frames to text, plots and pages. Computes nothing that a board should hold.

For other packages: run_page, board_page, board_tables, seeds_tables, run_tables, sweep,
thresholds, output, text, plots.
"""
