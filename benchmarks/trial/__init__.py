"""What trials of a whole fleet share."""
