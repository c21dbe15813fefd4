"""What is tuned: the late prompt."""
