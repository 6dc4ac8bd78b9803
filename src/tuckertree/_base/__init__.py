"""What everything stands on: errors, names, progress, optional packages, files written whole or not at all."""
