"""What a frozen encoder is worth: features read with labels, and signs that need none."""
