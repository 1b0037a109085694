"""Whether the bundled model does on a GPU what it does on a CPU, and how fast."""
