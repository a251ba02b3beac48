"""What the routing benchmark is made of: its data, protocols, routers and scores."""
