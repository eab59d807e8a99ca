"""The file to name: swift sft --external_plugins PATH/OF/plugin.py; see `keeptune.integrations.swift`."""

from keeptune.integrations.swift import register, settings_from_file

register(settings_from_file())
