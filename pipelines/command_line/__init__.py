"""The command `foundry`: run the pipeline, serve its encoders, look at both."""
