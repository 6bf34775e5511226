"""Panels: fixed questions about a page, whose answers become a result with fields."""
