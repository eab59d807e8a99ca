"""Audited models of one base side by side: what each learned against what it forgot."""
