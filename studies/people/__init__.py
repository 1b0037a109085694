"""Prototypes on real people's choices."""
