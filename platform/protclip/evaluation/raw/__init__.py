"""Readers of official files: each turns them into tables of one schema per kind."""
