"""All that knows TorchServe: what could be deleted the day it goes."""
