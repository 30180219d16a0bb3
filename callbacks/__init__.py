"""What watches a run; knows no model and no data set. Empty on purpose: files.py loads no torch."""
