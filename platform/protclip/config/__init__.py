"""Configuration: one frozen schema per job, loaded from YAML with overrides."""
