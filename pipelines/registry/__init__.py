"""All that speaks to MLflow: runs, versions, and the receipts of both."""
