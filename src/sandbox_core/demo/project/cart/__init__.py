"""Prices of a shopping cart."""
