"""The page that `project.export --format html` writes: its sources, made into one file."""
