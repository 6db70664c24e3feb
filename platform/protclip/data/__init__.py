"""Reading UniProt, sampling it, and feeding it to training in a fixed order."""
