"""What the suites share: a server to talk to, and clients that can misbehave."""
