"""The embedded engine: a private Valkey server for machines without a Redis. May import only the settings."""
