"""What each training stage buys."""
