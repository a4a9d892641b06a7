"""Data frames to text, plots and pages. Computes nothing that a board should hold.

For other packages: run_page, board_page, board_tables, seeds_tables, run_tables, sweep,
thresholds, output, text, plots, screen, short, tables, terminal, lines, run_end,
price_table, cards, drawing, gallery, run_plots, page_boards, multiplicity.
"""
