"""What hostile texts buy whoever writes them."""
