"""Holdfast: an order API that never oversells."""
