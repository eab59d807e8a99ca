"""Findings and how they are shown: one typed row a number, one table, one chart engine, one shell for every page.

This package stands below the audit and knows nothing of models. The demo, the laws and comparisons use it too.
"""
