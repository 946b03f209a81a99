"""`foundry doctor`: what may be wrong with this machine or this project, each in one small check."""
