"""Workers that serve each other's sessions: the router around the engine, and what workers ask each other."""
