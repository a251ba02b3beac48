"""A fleet of replicas, simulated: which replica a request goes to, and what that costs in loads and waiting."""
