"""The page that `project.export --format html` writes: its sources, combined into one file."""
