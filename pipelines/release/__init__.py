"""From a registered version to a checked archive, and to an endpoint that serves it."""
