"""The typed configuration: schema, constraints, command line, validation."""
