"""What more chains and similar users buy."""
