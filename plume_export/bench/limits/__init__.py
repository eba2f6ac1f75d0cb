"""What this machine allows, and what a pass of each graph has to do and to read."""
