"""Entity, feature views and feature service of every use case that the settings find.

They are named `<use case>__<name>`. Views written by hand stand beside this file, over lake tables,
with names of their own.
"""

from include.config.settings import settings
from include.features.feast_registry import definitions

# Feast collects the module's attributes.
globals().update(definitions(settings()))
