"""Speed, measured against the published loops."""
