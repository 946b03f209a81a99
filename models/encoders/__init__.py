"""The networks that survive pretraining, and where their first weights come from."""
