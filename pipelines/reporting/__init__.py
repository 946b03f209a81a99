"""The report page: results read once, then tables, charts and pictures of them."""
