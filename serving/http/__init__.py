"""HTTP that all servers share: errors, keys, paging, request bodies, OpenAPI."""
