"""Datasets of choices: every reader, and the questions made of them."""
