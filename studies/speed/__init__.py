"""How fast the parts are: memory, parser, prototypes."""
