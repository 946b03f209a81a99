"""How the FastAPI server takes connections and bodies, and puts images together."""
