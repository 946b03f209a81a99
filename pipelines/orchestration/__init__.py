"""What conducts the stages: DVC's graph and processes, Prefect's server, a folder taken in, a stop."""
