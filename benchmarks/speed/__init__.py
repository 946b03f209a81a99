"""Images per second: steps, views, masking, preparation; beside plain torch, other libraries and the peak."""
