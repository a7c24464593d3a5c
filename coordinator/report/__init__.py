"""What to look at: the HTML report, its analyses and figures."""
