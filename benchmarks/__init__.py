"""What is timed: ratios and rates of one run on one machine. Tests run them small and assert no speed."""
