"""What other programs read: training sets."""
