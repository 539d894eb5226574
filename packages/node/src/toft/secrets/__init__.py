"""Secret values, resolved at the moment of use and never shown."""
