"""Configuration: schema, composition, freezing, fingerprint."""
