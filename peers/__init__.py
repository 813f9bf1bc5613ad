"""Rounds between real processes that trust nobody."""
