"""Built-in suites, shipped as YAML."""
