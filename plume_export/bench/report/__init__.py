"""A report for a script, the terminal and a page."""
