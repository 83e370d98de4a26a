"""Calls whose every number was recorded before the redesign of November 2026, at commit 8d0c803."""
