"""How fast the parts of the library are: memory, parser, prototypes, scheduling, starting."""
