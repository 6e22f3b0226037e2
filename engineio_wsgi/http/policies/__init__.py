"""What an engine response may say to whom: CORS, allowed hosts, the session cookie, compression."""
