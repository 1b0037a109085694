"""Datasets of choices and the questions made of them. To add one: `sources`."""
