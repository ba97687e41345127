"""What is counted of requests, and its overview."""
