"""How right the bundled model is on users it never saw, and the card that says so."""
