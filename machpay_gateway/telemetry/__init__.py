"""What a gateway tells of what it did."""
