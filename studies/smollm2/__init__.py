"""Whether every chain of a small instruct model, held to the schema, can be read."""
