"""`pgenrm`: one file per group of commands."""
