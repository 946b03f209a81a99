"""Everything that talks to MLflow: runs, versions, and the receipts of both."""
