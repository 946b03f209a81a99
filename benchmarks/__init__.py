"""What is timed: ratios and rates of one run on one machine. Nothing here is asserted in a test."""
