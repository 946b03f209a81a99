"""From a registered version to a checked archive and an endpoint that serves it."""
