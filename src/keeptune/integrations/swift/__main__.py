"""Print the path for --external_plugins."""

from keeptune.integrations.swift import PLUGIN

print(PLUGIN)
